"""Write from the code what is said in it once: pages of docs/, and the keywords of `Hub(...)`.

`docs/settings.md` and `src/hubbub/settings_keywords.py` come from the class `Settings`, `docs/close-codes.md`
from the table of errors, `docs/coming-back.md` from what the tests of all clients expect, `docs/api.md` from
all docstrings (`gen_api.py`), the picture in `docs/architecture.md` from all imports (`house.py`), the table in
`docs/guides/metrics.md` from `hub.measures`, the tables of `docs/scaling.md` from what was measured and the
simulation. python tools/gen_docs.py writes them (`make docs`); with --check it fails when one of them is stale
(`make lint`).
"""

from __future__ import annotations

import functools
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hubbub.connection.failures import CAUSES
from hubbub.errors import CLOSE_CODES, NORMAL, RECONNECT_RANGES
from hubbub.hub.measures import MEASURES, Measure
from hubbub.raised import CODE_OF_STATUS, STATUS_OF_CODE
from hubbub.room_rules import RoomRules
from hubbub.settings import rows
from hubbub.settings_values import Row, shown

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "tests" / "refusals.json"
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

from .room_rules import RoomRules


class HubKeywords(TypedDict, total=False):
    """A keyword for each setting but `broker`, which a hub takes as an object too. One that is left out has
    its value from the environment."""
'''

KEYWORDS_TAIL = '''

class SettingsKeywords(HubKeywords, total=False):
    """A keyword for each setting."""
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
that the clients of a restarted server do not return in one wave. A reason that ends with `retry after 7.5 s`,
as that of a 1012 does where [`come_back_s`](settings.md) is set, is the least pause: the one drawn is
added to it, as to a `Retry-After`.

A handshake that is refused has no close code, since no WebSocket was ever open. Its HTTP status
says why: 400, 401, 403, 404, 409, 426, 429, 431 or 503, with a JSON body
`{"error": "a sentence", "code": "a_word"}`. A browser cannot read the status of a failed handshake;
it asks the same URL by GET and gets the same answer. [Coming back](coming-back.md) says for every
status, failure and code what each client does.
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
| `CommandError(code, message)` | 403 with that code and message; 503 if it is temporary | answered; the connection lives. In `on_connect`, if it is temporary: 1013 |
| `BrokerError` | 503 `unavailable` | as `CommandError("unavailable", …, temporary=True)` |
| `TokenExpired` | 401 `token_expired` | 3005: come back with a new token |
| `TokenInvalid`, `TokenKeysUnavailable` | 401 `token_invalid`, 503 `token_keys_unavailable` | 1008, 1013 |
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

COMING_BACK_HEAD = f"""{GENERATED}

# Coming back

`hubbub.js`, the [Python client](python-client.md) and [`hubbub connect`](cli.md) keep one promise:
what cannot succeed stops with a reason, what can succeed comes back, what was accepted to be sent is
sent or reported. This page says what follows each refusal, each failure and each close. Its tables
are the expectations of the tests, which drive every row against `hubbub.js` in Node and in Chromium
and against the Python client.

*Comes back* is another attempt, after the delay that the client draws. *Stays away* is the end, at
once. *A few times* is for what a deployment mends or nobody does: the client comes back, and gives
up when {{never_open}} attempts in a row ended so, or {{was_open}} once it had a connection. Any
other ending in between begins the count anew.

A connection with rooms ([`rooms.js`](rooms-js.md), and
[`connect(url, dialect="centrifuge")`](python-client.md#rooms)) comes back by the same rules, and then gets what it
missed. What the server answers to its connect command counts as an ending too: an error that is temporary comes back, 109
does where a function gives out tokens, any other stays away.

The address, and a token in it, may come from a function in both libraries; it is called before every
attempt, so whoever comes back comes back with a new token. The command has none to ask.

`hubbub connect` is the Python client with one difference: its first attempt decides. If that fails
for any reason, the command says which and ends with exit code 1.

## A handshake that is refused

The reason is `error` of the JSON body. Without one, the Python client shows a text/plain body or the
phrase of the status line, and `hubbub.js` "HTTP" and the status. A browser hides the answer to a
handshake: `hubbub.js` asks the same URL by GET, and where it may not read that answer either it comes
back. A redirect is followed by the Python client and not by browsers; the row is for one that leads
nowhere.

| status | | hubbub.js | Python | `hubbub connect`, later | why |
|---|---|---|---|---|---|
"""

COMING_BACK_REST = """
Other numbers: from 500 on comes back, other 4xx stays away, under 400 a few times. With 429 and 503 a
`Retry-After` is added to the delay, seconds or a date, an hour at most; one that makes no sense counts as none.

## A connection that is closed

The reason is the close frame's. Where it ends with `retry after 7.5 s` that is added to the delay, an hour at
most, and neither a network that returns nor a page that is seen again shortens it. What each code means is in
[Close codes](close-codes.md); these are its rows and the ends of its ranges.

| code | hubbub.js | Python | `hubbub connect` |
|---|---|---|---|
"""

COMING_BACK_FAILURES = """
## An attempt that fails without an answer

| what happened | hubbub.js | Python | `hubbub connect`, later |
|---|---|---|---|
"""

COMING_BACK_PYTHON = """
A browser does not tell a page more than that. The Python client sees what it was, and what the
iteration raises when it ends is `Disconnected` with this code, the reason in words and the exception
of the library below as `__cause__`:

| what happened | code | Python |
|---|---|---|
"""

COMING_BACK_TAIL = """
A proxy that answers with a status counts as a server that does: 407 and 403 stay away, 502 comes
back, and the reason begins with "the proxy answered". A function that raises `Disconnected` ends the
connection with just that. What a program sets up wrongly and what can be seen at once is no ending at
all: it is a `TypeError` or a `ValueError` of `connect(...)`, a `TypeError` of `new Hubbub(...)`.

Why does a certificate that nobody trusts come back at all? Because networks with a sign-in page and
proxies that have just started show one, for a while. The connection is never made with it.
"""


def coming_back_page() -> str:
    rows = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return "".join(
        [
            COMING_BACK_HEAD.format(**rows["gives_up_after"]),
            *map(_refusal_line, rows["refusals"]),
            COMING_BACK_REST,
            *map(_close_line, rows["closes"]),
            COMING_BACK_FAILURES,
            *map(_failure_line, rows["failures"]),
            COMING_BACK_PYTHON,
            *(f"| {row.meaning} | {row.code} | {_few(row.retry.value)} |\n" for row in CAUSES),
            COMING_BACK_TAIL,
        ]
    )


def _refusal_line(row: dict[str, Any]) -> str:
    follows = _follows(row)
    python = f"follows it; {follows}" if row.get("redirect") else follows
    name = "" if row["name"].startswith("(") else row["name"]
    delay = " Names the delay." if row.get("retry_after") else ""
    why = _escaped(row["why"]) + delay
    return f"| {row['status']} | {name} | {follows} | {python} | {python} | {why} |\n"


def _close_line(row: dict[str, Any]) -> str:
    follows = _follows(row)
    client = f"{follows}, with a new token" if row.get("new_token") else follows
    ends = "ends, exit code 0" if row["code"] == NORMAL else "ends, exit code 1"
    command = follows if row["comes_back"] else ends
    return f"| {row['code']} | {client} | {client} | {command} |\n"


def _failure_line(row: dict[str, Any]) -> str:
    python = _follows({**row, **row.get("python", {})})
    return f"| {row['why']} | {_follows(row)} | {python} | {python} |\n"


def _follows(row: dict[str, Any]) -> str:
    if row.get("gives_up"):
        return "a few times"
    return "comes back" if row["comes_back"] else "stays away"


def _few(follows: str) -> str:
    return follows.removeprefix("comes back ") if follows.endswith("a few times") else follows


def settings_page() -> str:
    return SETTINGS_HEAD + "".join(_setting_line(row) for row in rows()) + SETTINGS_TAIL


def keywords_module() -> str:
    own = "".join(_keyword(row) for row in rows() if row.name == "broker")
    return (
        KEYWORDS_HEAD
        + "".join(_keyword(row) for row in rows() if row.name != "broker")
        + KEYWORDS_TAIL
        + own
    )


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
        words = "Literal[" + ", ".join(f'"{choice}"' for choice in row.choices) + "]"
        kind = f"bool | {words}" if row.kind is bool else words
    else:
        kinds = {tuple[str, ...]: "Sequence[str]", tuple[RoomRules, ...]: "Sequence[RoomRules]"}
        kind = kinds.get(row.kind, row.kind.__name__)
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


def api_page() -> str:
    from gen_api import page  # beside this file

    return f"{GENERATED}\n\n" + page(Path(__file__).resolve().parent.parent / "src" / "hubbub")


def architecture_page() -> str:
    from house import architecture_page as page  # beside this file

    return page()


@functools.cache
def scaling_page() -> str:
    """Return the page that is computed with the simulation, which takes seconds."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # `simulation` lies beside `tools`
    from simulation.page import page

    return page()


METRICS = ROOT / "docs" / "guides" / "metrics.md"
METRICS_BEGIN = "<!-- The table, written by tools/gen_docs.py (`make docs`). Do not edit. -->"
METRICS_END = "<!-- The end of what is written. -->"
METRICS_HEAD = "\n\n| name | kind | labels | what it is |\n|---|---|---|---|\n"


def metrics_page() -> str:
    """Return the guide to metrics with its table written anew."""
    text = METRICS.read_text(encoding="utf-8")
    before, _, rest = text.partition(METRICS_BEGIN)
    after = rest.partition(METRICS_END)[2]
    table = "".join(map(_measure_line, MEASURES))
    return f"{before}{METRICS_BEGIN}{METRICS_HEAD}{table}\n{METRICS_END}{after}"


def _measure_line(measure: Measure) -> str:
    labels = ", ".join(f"`{label}`" for label in measure.labels)
    return f"| `{measure.name}` | {measure.kind} | {labels} | {_escaped(measure.text)} |\n"


def _setting_line(row: Row) -> str:
    text = row.doc
    if row.choices:
        text += " One of " + ", ".join(f"`{word}`" for word in row.words) + "."
    if row.none is not None:
        text += f" *none*: {row.none}."
    return f"| `{row.name}` | `{shown(row.default)}` | {row.unit} | {_escaped(text)} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


WRITTEN: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_page,
    "docs/close-codes.md": codes_page,
    "src/hubbub/settings_keywords.py": keywords_module,
    "docs/api.md": api_page,
    "docs/coming-back.md": coming_back_page,
    "docs/architecture.md": architecture_page,
    "docs/guides/metrics.md": metrics_page,
    "docs/scaling.md": scaling_page,
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
