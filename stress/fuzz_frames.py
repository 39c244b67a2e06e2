"""The coverage-guided fuzzer of the inbound lane: arbitrary bytes, cut at arbitrary places.

What must not live here: what right is (`differential`), the page (`fuzz_report`). `make fuzz` runs it:

    python -m stress.fuzz_frames --runs 100000      so many inputs more, from the kept corpus
    python -m stress.fuzz_frames --blind            change kept inputs at random, several times faster
    python -m stress.fuzz_frames --seed             write the first inputs into the corpus
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus" / "frames"
RESULTS = HERE / "results" / "fuzz_frames.json"
LONGEST_INPUT_BYTES = 1024

INSTRUMENTED = ["hubbub.transports.uvicorn", "hubbub.wire.reader", "websockets"]

NOTHING = {"inputs": 0, "seconds": 0, "differences": 0}

_KEY = b"\x37\xfa\x21\x3d"  # the one of RFC 6455's examples
_WHOLE, _BYTES, _CHUNKS, _TWO = range(4)


def pieces_of(data: bytes) -> list[bytes]:
    """Read an input: its first byte says how the rest becomes a stream, and where that is cut."""
    if len(data) < 2:
        return []
    how, rest = data[0], data[1:]
    stream = b"".join(_frames(rest)) if how & 0x80 else rest
    return [piece for piece in _cut(stream, how & 3, how >> 2 & 0x1F) if piece]


def _cut(stream: bytes, way: int, size: int) -> list[bytes]:
    if way == _WHOLE:
        return [stream]
    if way == _TWO:
        return [stream[:size], stream[size:]]
    step = 1 if way == _BYTES else size + 2
    return [stream[i : i + step] for i in range(0, len(stream), step)]


def _frames(recipe: bytes) -> Iterator[bytes]:
    """Cook frames: first byte, how its length is written and masked, the length, the payload."""
    position = 0
    while position + 3 <= len(recipe):
        first, how, length = recipe[position : position + 3]
        length *= 1 + (how & 3)
        payload = recipe[position + 3 : position + 3 + length]
        position += 3 + length
        yield _frame(first, how, payload)


def _frame(first: int, how: int, payload: bytes) -> bytes:
    if first & 0x40 and how & 0x40:
        payload = deflated(payload)
    is_masked = how & 0x0C != 0x0C
    said = len(payload) + (1 if how & 0xF0 == 0xF0 else 0)
    kind = 0 if said < 126 else 1
    if how & 0x30 == 0x30:
        kind = min(2, kind + 1)  # longer than it has to be
    field = (bytes([said & 0x7F]), b"\x7e" + said.to_bytes(2), b"\x7f" + said.to_bytes(8))[kind]
    head = bytes([first, field[0] | (0x80 if is_masked else 0)]) + field[1:]
    if not is_masked:
        return head + payload
    key = _KEY if how & 0x04 else bytes(4)
    return head + key + bytes(byte ^ key[i & 3] for i, byte in enumerate(payload))


def deflated(payload: bytes) -> bytes:
    """Deflate the payload of a whole message, as RFC 7692 section 7.2.1 has it."""
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def is_deflating(data: bytes) -> bool:
    """Tell which lane an input goes to: every other length to the one that negotiated compression."""
    return len(data) % 2 == 0


def seeds() -> list[bytes]:
    """Return the first inputs: each kind of frame, right and wrong, cut in each way."""
    texts = (b"", b"hello", "h\u00e9\u20ac".encode(), b"\xff", b"a" * 125, b"a" * 250)
    recipes = [bytes([first, 4, len(text)]) + text for text in texts for first in (0x81, 0x82)]
    recipes += [bytes([first, 4, 2]) + b"\x03\xe8" for first in (0x88, 0x89, 0x8A, 0x80, 0xC1)]
    recipes += [b"\x01\x04\x01a\x89\x04\x01b\x80\x04\x01c", b"\x01\x04\x01a\x88\x04\x02\x03\xe8"]
    packed = [bytes([0xC1, 0x44, len(text)]) + text for text in texts]
    packed += [b"\x41\x44\x05hello\x80\x04\x00", b"\x41\x44\x05hello\x89\x04\x01p\x80\x04\x00"]
    recipes += packed + [recipe + b"\x00" for recipe in packed]  # for either lane; says no more
    recipes += [b"\x81\x0c\x01a", b"\x81\x34\x01a", b"\x82\x37\xff" + bytes(255 * 4)]
    inputs = [bytes([0x80 | way | 5 << 2]) + r for way in range(4) for r in recipes]
    return inputs + [
        bytes([way | 5 << 2]) + b"".join(_frames(r)) for way in (0, 1) for r in recipes
    ]


def merge(work: Path, corpus: Path) -> int:
    """Keep the inputs that a guided run has found to add coverage; return how many are new."""
    known = {path.read_bytes() for path in corpus.iterdir()}
    found = {path.read_bytes() for path in work.iterdir() if not path.name.startswith("crash-")}
    for data in found - known:
        (corpus / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)
    return len(found - known)


def told(data: bytes) -> tuple[list[bytes], bool]:
    """Read an input: the pieces, and whether they go to the lane with compression."""
    return pieces_of(data), is_deflating(data)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="how many inputs (0: none)")
    parser.add_argument("--seconds", type=int, default=0, help="stop after so long (0: never)")
    parser.add_argument("--blind", action="store_true", help="without coverage: faster, finds less")
    parser.add_argument("--random", type=int, default=None, help="the seed of a blind run")
    parser.add_argument("--work", type=Path, default=HERE / "build" / "frames", help="new inputs")
    parser.add_argument("--seed", action="store_true", help="write the first inputs and end")
    parser.add_argument(
        "--merge", action="store_true", help="keep what adds coverage, smallest first"
    )
    parser.add_argument("--record", action="store_true", help="add the runs to the kept figures")
    return parser.parse_args(arguments)


class Counter:
    """Counts inputs, and now and then adds them to the kept figures: a fuzzer ends its process."""

    KEEP_EVERY = 50_000

    def __init__(self, is_kept: bool) -> None:
        self.runs = 0
        self._is_kept = is_kept
        self._kept = 0
        self._from = time.time()

    def run(self, compare: Callable[[], None]) -> None:
        """Run one input; a difference is counted and raised."""
        self.runs += 1
        try:
            compare()
        except Exception:
            self.keep(differences=1)
            raise
        if self.runs - self._kept >= self.KEEP_EVERY:
            self.keep()

    def keep(self, differences: int = 0) -> None:
        """Add what ran since the last time to the kept figures."""
        if self._is_kept:
            now = time.time()
            figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else dict(NOTHING)
            figures["inputs"] += self.runs - self._kept
            figures["seconds"] += round(now - self._from)
            figures["differences"] += differences
            figures["date"] = time.strftime("%Y-%m-%d")
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            self._from = now
        self._kept = self.runs


def mutated(chance: random.Random, inputs: list[bytes]) -> bytes:
    """Return one of `inputs` with a few changes: bytes set, put in, cut out, parts of another."""
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[at : at + 1] = chance.randbytes(1)
        elif kind == 1:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 2:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            other = chance.choice(inputs)
            start = chance.randrange(len(other) + 1)
            data[at:at] = other[start : start + chance.randrange(1, 64)]
        elif at < len(data):
            data[at] ^= 1 << chance.randrange(8)
    return bytes(data[:LONGEST_INPUT_BYTES])


def fuzz_blind(options: argparse.Namespace) -> None:
    """Compare the lanes on changed inputs; stop at the first difference."""
    from . import differential

    counter = Counter(options.record)
    chance = random.Random(options.random)
    folders = (CORPUS, options.work)
    inputs = [path.read_bytes() for folder in folders for path in sorted(folder.glob("*"))]
    deadline = time.time() + (options.seconds or 1e9)
    with differential.idle_loop():
        while counter.runs < options.runs and time.time() < deadline:
            counter.run(lambda: differential.compare(*told(mutated(chance, inputs))))
    counter.keep()


def fuzz(options: argparse.Namespace) -> None:
    """Run the fuzzer; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from . import differential

    counter = Counter(options.record)

    def one(data: bytes) -> None:
        counter.run(lambda: differential.compare(*told(data)))

    options.work.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_len={LONGEST_INPUT_BYTES}", "-timeout=20", f"-artifact_prefix={options.work}/"]
    flags += [f"-max_total_time={options.seconds}"] if options.seconds else []
    flags += [f"-runs={options.runs}", str(options.work), str(CORPUS)]
    atheris.Setup([sys.argv[0], *flags], one)
    with differential.idle_loop():
        atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """Fuzz, or write the seeds."""
    options: Any = _options(arguments)
    if options.seed:
        CORPUS.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds()):
            (CORPUS / f"seed-{number:03}").write_bytes(data)
    elif options.merge:
        print(f"{merge(options.work, CORPUS)} inputs are new")
    elif options.blind:
        fuzz_blind(options)
    else:
        fuzz(options)


if __name__ == "__main__":
    main(sys.argv[1:])
