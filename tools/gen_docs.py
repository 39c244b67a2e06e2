"""Write from the code what is said in it once: two pages of docs/, and the keywords of `Hub(...)`.

`docs/settings.md` and `src/hubbub/settings_keywords.py` come from the class `Settings`,
`docs/close-codes.md` from the table of errors. python tools/gen_docs.py writes them (`make docs`); with --check it fails when one of them is stale
(`make lint`).
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from hubbub.errors import CLOSE_CODES, RECONNECT_RANGES
from hubbub.raised import CODE_OF_STATUS, STATUS_OF_CODE
from hubbub.settings import Row, rows, shown

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "<!-- Written by tools/gen_docs.py (`make docs`). Do not edit. -->"

SETTINGS_HEAD = f"""{GENERATED}

# Settings

Every setting has one name. It is a keyword of `Hub(...)`, an environment variable (`HUBBUB_` and
the name in capitals) and an option of `hubbub serve`. A keyword wins over the environment, the
environment over the default; an option of the command line counts as environment, so it does not
change what the application's own code fixes.

A wrong value, an unknown name and an unknown variable that begins with `HUBBUB_` are errors at
start: the message names the field, the value, the unit and the nearest right name. `hubbub check`
prints the settings in force and where each came from.

A variable or an option that is empty counts as not given: `HUBBUB_MAX_MESSAGE_BYTES=` leaves the
default in force. Variables that Kubernetes makes for a service whose name begins with `hubbub`
(`HUBBUB_SERVICE_HOST`, `HUBBUB_PORT=tcp://10.0.0.1:80` and their like), and those of links between
Docker containers, say nothing about a setting and are passed over. A variable of your own needs a
name that begins otherwise.

Sizes may be written with a suffix in the environment and on the command line: `64KiB`, `1MiB`,
`2MB`. Where *none* has a meaning, write `none`.

| setting | default | unit | what it does |
|---|---|---|---|
"""

SETTINGS_TAIL = """
Two settings are given to the hub in Python only, since they are not one value:

- `slow_policies`, a keyword of `Hub`: a policy for each room whose name fits a pattern, for example
  `Hub(slow_policies={"cursor:*": "latest"})`. A room that fits none has `slow_policy`.
- `broker`, a keyword of `Hub`: where publications are ordered and kept. The default keeps them in
  this process.
"""

KEYWORDS_HEAD = '''"""Settings' keywords: what `Hub(...)` and `Settings.load(...)` take, for type checkers and editors.

Written by tools/gen_docs.py (`make docs`) from the class `Settings`. Do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict


class SettingsKeywords(TypedDict, total=False):
    """A keyword for each setting. One that is left out has its value from the environment."""
'''

CODES_HEAD = f"""{GENERATED}

# Close codes

A WebSocket ends with a code. The code decides whether a client should come back, so every client of
Hubbub (`hubbub.js`, `hubbub.connect`) uses the same table, and so should yours.

| code | name | come back | meaning |
|---|---|---|---|
"""

CODES_RANGES = """
Codes under 3000 that are not in the table count as accidents: come back. From 3000 on the range
decides, whatever the application means by the code:

| range | come back |
|---|---|
"""

CODES_TAIL = """
An application chooses from 4000 to 4999, as RFC 6455 section 7.4.2 leaves these to private use. The
meaning of the ranges is Centrifuge's, so that its clients do the right thing too.

Coming back means: after a pause drawn at random (0.5 to 20 seconds, growing with every failure), so
that the clients of a restarted server do not return in one wave.

A handshake that is refused has no close code, since no WebSocket was ever open. Its HTTP status
says why: 400, 401, 403, 404, 409, 426, 429, 431 or 503, with a JSON body
`{"error": "a sentence", "code": "a_word"}`. A browser cannot read the status of a failed handshake;
it asks the same URL by GET and gets the same answer.
"""

CODES_RAISED = """
## What an exception becomes

The exceptions of the web frameworks mean in a handler of the hub what they mean in a route. Before there
is a socket (in `authenticate`) they become an HTTP status, afterwards (in a message handler) a close
code. The hub knows them by what they carry, and imports no framework for it.

| raised | in `authenticate` | in a handler |
|---|---|---|
| `Refused(status, code, message)` | that status, with that body | closed as by an HTTP error of that status |
| `HTTPException(status, detail)` of Starlette, FastAPI or Litestar, `abort(status)` of Quart, `APIException` of Django REST | that status, the detail as `error`, its headers | closed, see below; the detail is the reason |
| `PermissionDenied`, `SuspiciousOperation`, `Http404` of Django | 403, 400, 404 | 1008 |
| `WebSocketException(code, reason)` of Starlette, FastAPI or Litestar, `Disconnected(code, reason)` | a status, see below; the reason as `error` | that code, that reason |
| `CommandError(code, message)` | 403 with that code and message; 503 if it is temporary | answered; the connection lives |
| anything else | 500 and a line in the log | a line in the log, then as `on_handler_error` says |

An HTTP error with a status below 400, and a close code that may not be sent, are among "anything else".
So are the errors of HTTP and WebSocket *clients*: what another server answered is not meant for this client.

"""

CODES_STATUSES = """
All other codes are a 403, except that 4400 to 4599 are the status and 4000: 4401 is a 401. The other way
round:

"""

CODES_BACK = """
All others from 400 to 499 close with 1008, all others from 500 to 599 with 1011.
"""


def settings_page() -> str:
    return SETTINGS_HEAD + "".join(_setting_line(row) for row in rows()) + SETTINGS_TAIL


def keywords_module() -> str:
    return KEYWORDS_HEAD + "".join(_keyword(row) for row in rows())


def _keyword(row: Row) -> str:
    none = "" if row.none is None else f" None: {row.none}."
    text = f"{row.doc}{none} Default: {shown(row.default)}."
    if row.kind in (int, float):
        text = f"In {row.unit}. {text}"
    doc = textwrap.fill(f'"""{text}"""', 98, initial_indent="    ", subsequent_indent="    ")
    return f"\n    {row.name}: {keyword_type(row)}\n{doc}\n"


def keyword_type(row: Row) -> str:
    """Return the annotation of a setting's keyword. A tuple may be given as any sequence."""
    if row.choices:
        kind = "Literal[" + ", ".join(f'"{choice}"' for choice in row.choices) + "]"
    else:
        kind = "Sequence[str]" if row.kind == tuple[str, ...] else row.kind.__name__
    return kind if row.none is None else f"{kind} | None"


def codes_page() -> str:
    codes = "".join(
        f"| {code} | {name} | {_yes(back)} | {meaning} |\n"
        for code, name, back, meaning in CLOSE_CODES
    )
    ranges = "".join(
        f"| {first}-{last} | {_yes(back)} |\n" for first, last, back in RECONNECT_RANGES
    )
    there = _pairs("close code", "status of the refusal", STATUS_OF_CODE)
    back = _pairs("HTTP status", "close code", CODE_OF_STATUS)
    raised = CODES_RAISED + there + CODES_STATUSES + back + CODES_BACK
    return CODES_HEAD + codes + CODES_RANGES + ranges + CODES_TAIL + raised


def _pairs(left: str, right: str, table: dict[int, int]) -> str:
    lines = "".join(f"| {key} | {value} |\n" for key, value in table.items())
    return f"| {left} | {right} |\n|---|---|\n{lines}"


def _setting_line(row: Row) -> str:
    text = row.doc
    if row.choices:
        text += " One of " + ", ".join(f"`{choice}`" for choice in row.choices) + "."
    if row.none is not None:
        text += f" *none*: {row.none}."
    return f"| `{row.name}` | `{shown(row.default)}` | {row.unit} | {_escaped(text)} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


WRITTEN = {
    "docs/settings.md": settings_page,
    "docs/close-codes.md": codes_page,
    "src/hubbub/settings_keywords.py": keywords_module,
}


def main(arguments: list[str]) -> int:
    stale = []
    for name, write in WRITTEN.items():
        path = ROOT / name
        text = write()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    if stale:
        print(f"out of date: {', '.join(stale)}. Run: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
