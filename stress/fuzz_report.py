"""The page's part about fuzzing, from the kept figures: `python -m stress.fuzz_report`.

What must not live here: fuzzing (`fuzz_frames`, and the tests that the text names).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import page
from .fuzz_frames import CORPUS, RESULTS

TEXT = """\
**Frames.** {inputs:,} inputs, over successive versions of the lane, were fed to the native transport's
inbound lane and to the Sans-IO core of `websockets` side by side, cut at arbitrary places (last on
{date}): the same messages, the same close codes, the same pongs, no exception; {differences} differences.
From the 789,415th on, every other input goes to the lane of a client that negotiated compression, and
to the core with what inflates for it. `make fuzz` goes on, guided by
coverage (atheris); `make fuzz ARGS="--blind --runs 1000000"` changes the kept inputs at random, several
times faster; `--record` adds to the figure above. The inputs that add coverage are kept, {count} of
them; every test run plays them again, with 3,000 changed ones and a state machine that holds the lane
back and releases it between the pieces (`tests/stress/test_differential.py`).

The one rule in which the native lane differs from the core, on purpose: a control frame is no part of
the message between whose fragments it stands (RFC 6455 section 5.4), so neither a close frame nor a
ping there is an error.

Found by fuzzing, and mended: a fragment that exceeds what its message has left was refused only when
it was there in full; now at its header. The figure counts from there on.

**Handshakes.** `tests/stress/test_handshakes.py` sends malformed, huge, slow, duplicated and
conflicting requests over real sockets: named ones, and {handshakes} per test run that hypothesis makes
up. Every answer is an HTTP response with a status of its own, or the connection ends; the event loop's
exception handler is never called, and a good client is served after each.

**Messages, query strings, names of rooms.** `tests/stress/test_inputs.py`: any text, any bytes
and any JSON as a message; any query string; any string as a room's name. No exception reaches the
event loop's handler, and whatever is refused is refused with a code.
"""

HANDSHAKES = 60
"""How many handshakes a test run makes up."""


def part(figures: Mapping[str, Any], count: int) -> str:
    """Return the part of the page, in Markdown; `count` is how many inputs are kept."""
    return TEXT.format(
        inputs=figures["inputs"],
        date=figures["date"],
        differences=figures["differences"] or "no",
        count=count,
        handshakes=HANDSHAKES,
    )


def current() -> str:
    """Return the part as the kept figures have it."""
    figures = json.loads(RESULTS.read_text(encoding="utf-8"))
    return part(figures, len(list(CORPUS.iterdir())))


if __name__ == "__main__":
    page.write("fuzzing", current())
