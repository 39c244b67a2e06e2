"""Fossil: a message as the difference to the one before it, and back.

What must not live here: which message is the base of which, whether a client can read patches, JSON
strings around them. A dialect makes patches, the client program applies them.

A patch says the length of its target and a newline; then, in the order of the target, what is copied
(`count@offset,` of the base) and what is new (`count:` and the bytes); then the checksum and a
semicolon. Numbers are written to the base of 64, the most significant digit first
(https://fossil-scm.org/home/doc/trunk/www/delta_format.wiki).
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_NUMBER = re.compile(rb"([0-9A-Z_a-z~]{1,6})([\n@,:;])")
"""Six digits hold any number of 32 bits, and no more than that is ever written."""

_BLOCK_BYTES = 16
"""What is found anywhere in the base: a block of it that begins at a multiple of this."""
_INDEXED_AROUND = 8
"""How far around the change in the base blocks are looked for, in lengths of the change."""
_NEAR = 2
"""Of a block that is there often: how many places on either side of the expected one are tried."""
_LONG_BYTES = 64
"""What is so long and the same is no accident: it is found before what is shorter."""
_PATIENCE = 256
"""After so many steps without a match the steps become 2 bytes longer, and again after as many more."""

_Copy = tuple[int, int, int]
"""Where it begins in the base; where in the target it begins, and ends."""


def fossil_delta(base: bytes, target: bytes, *, is_text: bool = True) -> bytes | None:
    """Return the patch that makes `target` of `base`; None where there is none that is worth it.

    That is where a patch would not be smaller, and with `is_text` also where base or target is not
    UTF-8. A patch between two texts is itself a text: what is new in it are whole characters. Where
    patches are sent as bytes, `is_text=False` makes them smaller for some texts, and takes all bytes.

    The time is linear, whatever the bytes are: at most 6 pieces of base or target are looked at for
    each byte of the target, and one for each 16 bytes of the base; all those pieces together have at
    most 64 bytes for each byte of the target, and 8 for each of the base. Where nothing matches, it is
    less by far: of n bytes `32 * sqrt(n)` are tried. The tests count it. May be called from any thread.
    """
    if is_text and not (_is_text(base) and _is_text(target)):
        return None
    copies = _copies(base, target)
    if is_text:
        copies = [_whole_characters(target, copy) for copy in copies]
    patch = [_number(len(target)), b"\n"]
    written = 0
    for offset, start, end in copies:
        command = b"%b@%b," % (_number(end - start), _number(offset))
        if len(command) < end - start:
            patch += [*_literal(target[written:start]), command]
            written = end
    patch += [*_literal(target[written:]), _number(_checksum(target)), b";"]
    joined = b"".join(patch)
    return joined if len(joined) < len(target) else None


def apply_delta(base: bytes, patch: bytes, *, max_bytes: int) -> bytes:
    """Return what `patch` makes of `base`.

    Raises `ValueError` for a patch with anything wrong: its form, a length, an offset, the checksum,
    and a target longer than `max_bytes`. Such a target is never built; while one is built, it may be
    in memory twice. The time is linear in the lengths of patch and target. May be called from any
    thread.
    """
    length, operator, at = _read_number(patch, 0)
    if operator != b"\n":
        raise ValueError("the patch does not begin with the length of its target")
    if length > max_bytes:
        raise ValueError(f"the patch makes {length} bytes, and {max_bytes} are allowed")
    target = bytearray()
    from_base, from_patch = memoryview(base), memoryview(patch)
    while True:
        count, operator, at = _read_number(patch, at)
        if operator == b";":
            break
        if operator == b"@":
            start, operator, at = _read_number(patch, at)
            if operator != b",":
                raise ValueError(
                    f"the copy before byte {at} of the patch does not end with a comma"
                )
            source = from_base
        elif operator == b":":
            start, source = at, from_patch
            at += count
        else:
            raise ValueError(f"before byte {at} of the patch there is no command")
        if start + count > len(source):
            raise ValueError(f"bytes {start} to {start + count} are wanted of {len(source)}")
        if len(target) + count > length:
            raise ValueError(f"the patch makes more than the {length} bytes that it says")
        target += source[start : start + count]
    if at != len(patch):
        raise ValueError(f"the patch goes on after its end, at byte {at}")
    if len(target) != length:
        raise ValueError(f"the patch makes {len(target)} bytes, and says {length}")
    made = bytes(target)
    if _checksum(made) != count:
        raise ValueError("the checksum is wrong: the patch belongs to another base")
    return made


class _Index(NamedTuple):
    """Where the blocks of a part of base are."""

    once: dict[bytes, int]
    often: dict[bytes, list[int]]


def _copies(base: bytes, target: bytes) -> list[_Copy]:
    """Return what can be copied, in the order of the target: the same beginning and end at least.

    Between them, what is long and in one place of the base is found first. Else a table whose first
    row has gone would have its rows copied in pieces: each resembles the row that was in its place.
    """
    most = min(len(base), len(target))
    start = _agreeing(base, 0, target, 0, most)
    at_end = _agreeing(base, len(base), target, len(target), most - start, backwards=True)
    base_end, end = len(base) - at_end, len(target) - at_end
    first, last = (0, 0, start), (base_end, end, len(target))
    if end - start < _BLOCK_BYTES:
        return [first, last]
    around = _INDEXED_AROUND * (end - start)
    index = _make_index(base, max(0, start - around), min(len(base), base_end + around))
    copies = [first]
    for copy in [*_find_long(base, index, target, start, end), last]:
        copies += _find_more(base, index, target, copies[-1], copy[1])
        copies.append(copy)
    return copies


def _make_index(base: bytes, start: int, end: int) -> _Index:
    # A dict's hash is keyed anew in each process: nobody can choose blocks that collide.
    index = _Index({}, {})
    once, often = index
    for at in range(start, end - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        block = base[at : at + _BLOCK_BYTES]
        first = once.setdefault(block, at)
        if first != at:
            often.setdefault(block, [first]).append(at)
    for block in often:
        del once[block]
    return index


def _find_long(base: bytes, index: _Index, target: bytes, start: int, end: int) -> Iterator[_Copy]:
    """Find in the target, from `start` to `end`, what is long and has a block that is once in base."""
    misses, here = 0, start
    while here <= end - _BLOCK_BYTES:
        at = index.once.get(target[here : here + _BLOCK_BYTES])
        if at is None:
            misses += 1
            here += _step(misses)
            continue
        copy = _longest(base, [at], target, here, start, end)
        here = copy[2]
        if here - copy[1] >= _LONG_BYTES:
            yield copy
            misses, start = 0, here


def _find_more(
    base: bytes, index: _Index, target: bytes, before: _Copy, end: int
) -> Iterator[_Copy]:
    """Find in the target, from the copy before to `end`, what is anywhere in base.

    It is expected as far behind the copy before as in the target: of what was replaced by as much.
    """
    copy, misses, here = before, 0, before[2]
    while here <= end - _BLOCK_BYTES:
        block = target[here : here + _BLOCK_BYTES]
        expected = here + copy[0] - copy[1]
        places = [expected] if expected >= 0 and base.startswith(block, expected) else []
        if block in index.once:
            places.append(index.once[block])
        elif block in index.often:
            there = index.often[block]
            near = bisect_left(there, expected)
            places += [there[0], *there[max(1, near - _NEAR) : near + _NEAR]]
        if places:
            copy = _longest(base, places, target, here, copy[2], end)
            yield copy
            misses, here = 0, copy[2]
        else:
            misses += 1
            here += _step(misses)


def _step(misses: int) -> int:
    # Always odd: where something long is common to both, one of 16 steps meets a block.
    return 1 + misses // _PATIENCE * 2


def _longest(
    base: bytes, places: list[int], target: bytes, here: int, start: int, end: int
) -> _Copy:
    """Return what can be copied to `here` from one of the places; the longest, if from several.

    From each of the places a whole block is. The copy may begin before, down to `start`, and ends at
    `end`.
    """
    best, length = places[0], _BLOCK_BYTES
    for at in places:
        most = min(len(base) - at, end - here)
        more = length + 1
        if more <= most and base[at : at + more] == target[here : here + more]:
            best = at
            length = more + _agreeing(base, at + more, target, here + more, most - more)
    before = _agreeing(base, best, target, here, min(best, here - start), backwards=True)
    return best - before, here - before, here + length


def _agreeing(
    base: bytes, at: int, target: bytes, start: int, most: int, backwards: bool = False
) -> int:
    """Count the bytes that are equal from two places on, or before them; at most `most`.

    It compares twice as many each time, and once they differ, half as many, so that few steps do.
    """
    count, step, is_growing = 0, _BLOCK_BYTES, True
    while step and count < most:
        size = min(step, most - count)
        skip = -count - size if backwards else count
        one, other = at + skip, start + skip
        if base[one : one + size] == target[other : other + size]:
            count += size
        else:
            is_growing = False
        step = step * 2 if is_growing else step // 2
    return count


def _whole_characters(target: bytes, copy: _Copy) -> _Copy:
    """Return the copy without the parts of characters at its ends (UTF-8: RFC 3629 section 3)."""
    offset, start, end = copy
    skipped = start
    while skipped < end and target[skipped] & 0xC0 == 0x80:
        skipped += 1
    while skipped < end < len(target) and target[end] & 0xC0 == 0x80:
        end -= 1
    return offset + skipped - start, skipped, end


def _literal(data: bytes) -> tuple[bytes, ...]:
    return (_number(len(data)), b":", data) if data else ()


def _number(value: int) -> bytes:
    digits = [_DIGITS[value & 63]]
    while value := value >> 6:
        digits.append(_DIGITS[value & 63])
    return bytes(reversed(digits))


def _read_number(patch: bytes, at: int) -> tuple[int, bytes, int]:
    """Return the number that begins at a byte of the patch, what stands after it, and where that ends.

    Raises `ValueError` where there is none.
    """
    found = _NUMBER.match(patch, at)
    if found is None:
        raise ValueError(f"at byte {at} of the patch there is no number that anything follows")
    value = 0
    for digit in found[1]:
        value = value << 6 | _VALUES[digit]
    return value, found[2], found.end()


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _checksum(data: bytes) -> int:
    """Return the sum of the big-endian words of 32 bits, modulo 2**32, the last filled with zeros.

    The low half of an Adler-32 (RFC 1950 section 9) is 1 more than the sum of the bytes, if they are
    so few that its modulus is not reached: by far the fastest way to add bytes in Python.
    """
    total = 0
    for place in range(4):
        lane = data[place::4]
        few = range(0, len(lane), 256)
        added = sum([zlib.adler32(lane[at : at + 256]) & 0xFFFF for at in few]) - len(few)
        total = (total << 8) + added
    return total & 0xFFFFFFFF
