"""Patches: there and back again, as the SDKs read them, small, whole characters, and in bounded work."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from typing import Any, AnyStr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.wire.fossil import apply_delta, fossil_delta

BOOK = (
    '{"rows":[{"id":1,"name":"ada","price":10.25},{"id":2,"name":"grace","price":8.5}]}',
    '{"rows":[{"id":1,"name":"ada","price":10.5},{"id":2,"name":"grace","price":8.5}]}',
    '{"rows":[{"id":2,"name":"grace","price":8.5},{"id":1,"name":"ada","price":10.25}]}',
)
LOREM = '{"n":%d,"big":"' + "lorem ipsum " * 6 + '"}'
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
KANJI = ("漢字かな交じり文、漢字かな交じり文", "漢字カナ交じり文、漢字かな交じり文。")

# All were applied by `applyDelta` of centrifuge-js 5.8.0 under Node, and made these targets. Some are
# ours, some the npm package fossil-delta 2.0.0 made, and the second stands in the protocol's notes.
VECTORS = [
    (LOREM % 1, "1O\n5@0,1:21I@6,7eV7w;", LOREM % 2),
    (LOREM % 1, '1O\n6:{"n":21I@6,7eV7w;', LOREM % 2),
    (BOOK[0], "1H\ne@0,d@f,35RG0C;", BOOK[1]),
    (BOOK[0], "1I\nF@0,T@o,1:,X@9,4:5}]}U_1v_;", BOOK[2]),
    (BOOK[0], '1I\n9:{"rows":[Z@i,1:,Z@9,2:]}U_1v_;', BOOK[2]),
    (
        '{"text":"a body long enough é"}',
        'W\nS@0,4:è"}1BG9UK;',
        '{"text":"a body long enough è"}',
    ),
    ('{"t":"🟢🟢🟢🟢🟢🟢"}', "W\nI@0,4:🔴A@M,1dA3eP;", '{"t":"🟢🟢🟢🔴🟢🟢"}'),
    (KANJI[0], "r\n6@0,6:カナc@C,3:。7bvgD;", KANJI[1]),
    (KANJI[0], "r\nC:漢字カナc@C,3:。7bvgD;", KANJI[1]),
    ("a" * 40, "c\nc@0,3DoSqe;", "a" * 39),
    ("a" * 40, "1H\n1:bd@0,d@0,3ybujK;", "b" + "a" * 80),
    ("", "S\nS:nothing of the base is in it3dh0iR;", "nothing of the base is in it"),
    (ALPHABET, "_\n6:uvwxyzU@0,1bRnpo;", "uvwxyz" + ALPHABET[:-6]),
    ("\0\1\x7f" * 10, "X\nU@0,3:\0\1\x7f21WO01;", "\0\1\x7f" * 11),
    ("0123456789", "0\n0;", ""),
]

FAULTY = {
    "nothing": b"",
    "no newline": b"A",
    "no commands": b"A\n",
    "no length": b"\nA@0,2ScrXf;",
    "another sign after the length": b"A:A@0,2ScrXf;",
    "no checksum": b"A\nA@0,",
    "a checksum without its end": b"A\nA@0,2ScrXf",
    "a wrong checksum": b"A\nA@0,2ScrXe;",
    "an empty checksum": b"A\nA@0,;",
    "a checksum of 36 bits": b"A\nA@0,~~~~~~;",
    "a number too long": b"A\nA@0,00000002ScrXf;",
    "a copy from beyond the base": b"A\nA@1,2ScrXf;",
    "a copy of nothing from beyond the base": b"A\n0@B,A@0,2ScrXf;",
    "a copy of too much": b"A\nB@0,2ScrXf;",
    "a copy with its end wrong": b"A\nA@0;2ScrXf;",
    "a copy without its end": b"A\nA@0",
    "a negative offset": b"A\nA@-1,2ScrXf;",
    "two copies of too much": b"A\nA@0,A@0,2ScrXf;",
    "less than was said": b"A\n9@0,2ScrXf;",
    "more than was said": b"A\nA@0,1:x2ScrXf;",
    "a literal that is not there": b"A\nA:012",
    "a literal that is not there, nor allowed": b"A\n~~~~~~:012",
    "another command": b"A\nA?0,2ScrXf;",
    "a comma for a command": b"A\nA,A@0,2ScrXf;",
    "what goes on": b"A\nA@0,2ScrXf;A",
    "a newline at the end": b"A\nA@0,2ScrXf;\n",
}


@st.composite
def edited(
    draw: st.DrawFn, piece: st.SearchStrategy[AnyStr], nothing: AnyStr
) -> tuple[AnyStr, AnyStr]:
    """A base of words that are there often, as in JSON, and what edits make of it."""
    words = draw(st.lists(piece, min_size=1, max_size=6))
    base = nothing.join(draw(st.lists(st.sampled_from(words), max_size=60)))
    target = base
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(target)))
        end = draw(st.integers(start, len(target)))
        here, cut, there = target[:start], target[start:end], target[end:]
        kind = draw(st.sampled_from(["insert", "delete", "replace", "move", "double"]))
        if kind == "insert":
            target = here + draw(piece) + cut + there
        elif kind == "delete":
            target = here + there
        elif kind == "replace":
            target = here + draw(piece) + there
        elif kind == "move":
            target = cut + here + there
        else:
            target = here + cut + cut + there
    return base, target


TEXT_PIECES = st.text("ab ,éèß€漢漣🟢🔴", min_size=1, max_size=24) | st.text(max_size=20)
BYTE_PIECES = st.binary(min_size=1, max_size=24)


def is_round(base: bytes, target: bytes, patch: bytes | None) -> bool:
    """Say whether the patch makes the target of the base, and is smaller; it may be missing."""
    if patch is None:
        return True
    return len(patch) < len(target) and apply_delta(base, patch, max_bytes=len(target)) == target


@given(edited(TEXT_PIECES, ""))
def test_an_edited_text_comes_back_and_its_patch_is_a_text(pair: tuple[str, str]) -> None:
    base, target = (text.encode() for text in pair)
    patch = fossil_delta(base, target)
    assert is_round(base, target, patch)
    if patch is not None:
        assert patch.decode().encode() == patch
    assert is_round(base, target, fossil_delta(base, target, is_text=False))


@given(edited(BYTE_PIECES, b""))
def test_edited_bytes_come_back(pair: tuple[bytes, bytes]) -> None:
    assert is_round(*pair, fossil_delta(*pair, is_text=False))


@given(edited(BYTE_PIECES, b""))
def test_a_patch_for_text_is_text_or_nothing(pair: tuple[bytes, bytes]) -> None:
    patch = fossil_delta(*pair)
    assert is_round(*pair, patch)
    if patch is not None:
        for each in (*pair, patch):
            each.decode()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_strangers_come_back(base: bytes, target: bytes) -> None:
    assert is_round(base, target, fossil_delta(base, target, is_text=False))


@pytest.mark.parametrize(("base", "patch", "target"), VECTORS)
def test_patches_that_sdks_apply_are_applied(base: str, patch: str, target: str) -> None:
    made = apply_delta(base.encode(), patch.encode(), max_bytes=len(target.encode()))
    assert made.decode() == target


@pytest.mark.parametrize(("base", "patch", "target"), VECTORS)
def test_ours_are_no_longer_than_patches_that_sdks_apply(
    base: str, patch: str, target: str
) -> None:
    ours = fossil_delta(base.encode(), target.encode())
    assert len(target.encode() if ours is None else ours) <= len(patch.encode())


def document(size: int) -> dict[str, Any]:
    """An object of about so many bytes of JSON, in which no two rows are equal."""
    chance, rows = random.Random(size), []
    for number in range(size // 64):
        price = chance.randrange(100_000) / 100
        rows.append({"id": number, "name": f"instrument {number}", "price": price})
    return {"rows": rows}


@pytest.mark.parametrize("size", [1024, 2048, 16_384, 65_536])
def test_one_number_changed_in_the_middle_takes_few_bytes(size: int) -> None:
    value = document(size)
    base = json.dumps(value).encode()
    value["rows"][len(value["rows"]) // 2]["price"] = 1234.5
    target = json.dumps(value).encode()
    patch = fossil_delta(base, target)
    assert is_round(base, target, patch)
    assert patch is not None
    assert len(patch) < 48


def test_two_numbers_changed_far_apart_take_few_bytes() -> None:
    value = document(2048)
    base = json.dumps(value).encode()
    value["rows"][3]["price"] = 1234.5
    value["rows"][-3]["price"] = 8
    target = json.dumps(value).encode()
    patch = fossil_delta(base, target)
    assert is_round(base, target, patch)
    assert patch is not None
    assert len(patch) < 80


def test_a_row_that_moved_is_found() -> None:
    value = document(2048)
    base = json.dumps(value).encode()
    value["rows"].insert(2, value["rows"].pop(-2))
    target = json.dumps(value).encode()
    patch = fossil_delta(base, target)
    assert is_round(base, target, patch)
    assert patch is not None
    assert len(patch) < 80


def test_a_window_of_rows_that_moved_on_is_one_copy() -> None:
    rows = [
        f'{{"id":{1000 + number},"state":"running","value":{100 + number}}}'
        for number in range(101)
    ]
    base, target = ",".join(rows[:-1]).encode(), ",".join(rows[1:]).encode()
    patch = fossil_delta(base, target)
    assert is_round(base, target, patch)
    assert patch is not None
    assert len(patch) < len(rows[0]) + 32


def test_of_like_places_the_best_is_taken() -> None:
    rows = [f"{{a name that is long: and the number: {number:08}}}," for number in range(99)]
    assert len(rows[0]) == 48, "whole blocks: each row begins with the same ones"
    new = "{" + "-" * 45 + "},"
    base, target = "".join(rows), "".join([*rows[:50], new, *rows[50:80], *rows[82:]])
    patch = fossil_delta(base.encode(), target.encode())
    assert is_round(base.encode(), target.encode(), patch)
    assert patch is not None
    assert patch.count(b"@") == 3, "before the new row, after it, and after what is gone"


@pytest.mark.parametrize(
    ("old", "new"), [("é", "è"), ("漢", "漣"), ("🟢", "🔴"), ("é", "e\u0301"), ("🟢", "漢")]
)
@pytest.mark.parametrize("around", ["", "é", "漢", "🟢"])
def test_no_character_is_cut(old: str, new: str, around: str) -> None:
    body = "a text that is long enough to be copied"
    base = f"{body}{around}{old}{around}{body}".encode()
    target = f"{body}{around}{new}{around}{body}".encode()
    patch = fossil_delta(base, target)
    assert is_round(base, target, patch)
    assert patch is not None
    assert new in patch.decode()


def test_bytes_may_be_cut_anywhere() -> None:
    base, target = ("a" * 40 + each + "b" * 40 for each in "éè")
    patch = fossil_delta(base.encode(), target.encode(), is_text=False)
    assert patch is not None
    assert b"1:\xa8" in patch


@pytest.mark.parametrize("side", ["base", "target"])
def test_what_is_no_text_has_no_patch_that_is_text(side: str) -> None:
    good, bad = b"a" * 100, b"a" * 99 + b"\xff"
    pair = (bad, good) if side == "base" else (good, bad)
    assert fossil_delta(*pair) is None
    assert is_round(*pair, fossil_delta(*pair, is_text=False))
    assert fossil_delta(*pair, is_text=False) is not None


@pytest.mark.parametrize("target", [b"", b"a", b"short", b"nothing of it is in the base"])
def test_where_a_patch_is_no_smaller_there_is_none(target: bytes) -> None:
    assert fossil_delta(b"a" * 100, target) is None


def base_64(value: int) -> str:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
    high, low = divmod(value, 64)
    return (base_64(high) if high else "") + digits[low]


def whole(length: int, checksum: int) -> bytes:
    """The patch that copies all of a base of this length."""
    number = base_64(length)
    return f"{number}\n{number}@0,{base_64(checksum % 2**32)};".encode()


@pytest.mark.parametrize("length", [*range(9), 255, 256, 257, 1023, 1024, 1025, 1029, 5000])
@pytest.mark.parametrize("byte", [0, 1, 127, 255])
def test_the_checksum_is_the_sum_of_words(length: int, byte: int) -> None:
    data = bytes([byte]) * length
    filled = data + bytes(-length % 4)
    checksum = sum(int.from_bytes(filled[at : at + 4], "big") for at in range(0, length, 4))
    assert apply_delta(data, whole(length, checksum), max_bytes=length) == data
    with pytest.raises(ValueError, match="checksum"):
        apply_delta(data, whole(length, checksum + 1), max_bytes=length)
    if length > 100:
        assert fossil_delta(data, data, is_text=False) == whole(length, checksum)


@pytest.mark.parametrize("patch", FAULTY.values(), ids=FAULTY)
def test_a_faulty_patch_is_refused(patch: bytes) -> None:
    with pytest.raises(ValueError, match=r"patch|checksum|bytes"):
        apply_delta(b"0123456789", patch, max_bytes=2**40)


def test_the_faulty_patches_are_faulty_by_that_alone() -> None:
    assert apply_delta(b"0123456789", b"A\nA@0,2ScrXf;", max_bytes=10) == b"0123456789"
    assert apply_delta(b"0123456789", b"A\n0@A,A@0,0:2ScrXf;", max_bytes=10) == b"0123456789"


def test_a_target_larger_than_allowed_is_refused_before_it_is_built() -> None:
    base, target = b"a" * 1000, b"a" * 999
    patch = fossil_delta(base, target)
    assert patch is not None
    assert apply_delta(base, patch, max_bytes=999) == target
    with pytest.raises(ValueError, match="makes 999 bytes, and 998 are allowed"):
        apply_delta(base, patch, max_bytes=998)


@pytest.mark.parametrize("said", [1, 10, 1_000_000])
def test_no_patch_makes_more_than_it_says(said: int) -> None:
    base = b"a" * 100_000
    number = base_64(len(base))
    bomb = f"{base_64(said)}\n{f'{number}@0,' * 10_000}0;".encode()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="makes more than"):
            apply_delta(base, bomb, max_bytes=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * said + 20_000


def apply_or_refuse(base: bytes, patch: bytes, max_bytes: int) -> None:
    try:
        made = apply_delta(base, patch, max_bytes=max_bytes)
    except ValueError:
        return
    assert len(made) <= max_bytes


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_any_bytes_are_applied_or_refused(base: bytes, patch: bytes) -> None:
    apply_or_refuse(base, patch, 64)


@given(st.binary(max_size=40), st.text("0123A~@:,;\n", max_size=60))
def test_what_looks_like_a_patch_is_applied_or_refused(base: bytes, patch: str) -> None:
    apply_or_refuse(base, patch.encode(), 64)


def test_damaged_patches_are_refused_or_make_what_their_checksum_says() -> None:
    chance = random.Random(7)
    base, target = (text.encode() for text in (BOOK[0], BOOK[2]))
    patch = fossil_delta(base, target)
    assert patch is not None
    for _ in range(5000):
        damaged = bytearray(patch)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(damaged))
            if chance.random() < 0.5:
                damaged[at] = chance.choice(b"0123456789AZ_az~@:,;\n\0\xff")
            else:
                damaged[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        apply_or_refuse(base, bytes(damaged), 256)


class Counted(bytes):
    """Bytes that count what is read of them: how many pieces, and how many bytes."""

    pieces = 0
    total = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        Counted.pieces += 1
        Counted.total += 1 if isinstance(found, int) else len(found)
        return found

    def startswith(self, *looked_for: Any) -> bool:
        Counted.pieces += 1
        Counted.total += len(looked_for[0])
        return super().startswith(*looked_for)


def work(base: bytes, target: bytes, *, is_text: bool = False) -> tuple[int, int]:
    """How many pieces of both a delta read, and how many bytes those had.

    Each turn of each loop reads at least one piece, but for the one that writes what was found.
    """
    Counted.pieces = Counted.total = 0
    fossil_delta(Counted(base), Counted(target), is_text=is_text)
    return Counted.pieces, Counted.total


def adversaries(size: int) -> dict[str, tuple[bytes, bytes]]:
    """Bases and targets of about `size` bytes that match nowhere, everywhere, or often and briefly."""
    chance = random.Random(size)
    noise = chance.randbytes(size)
    blocks = [noise[at : at + 16] for at in range(0, size, 16)]
    flaws = bytearray(noise)
    flaws[::24] = bytes(each ^ 255 for each in flaws[::24])
    same, period = b"a" * size, (noise[:37] * size)[:size]
    emoji = ["".join(chance.choices("🟢🔴", k=size // 4)).encode() for _ in range(2)]
    return {
        "noise": (noise, chance.randbytes(size)),
        "one byte": (same, b"b" + same + b"b"),
        "one byte, more of it": (same[: size // 2], b"b" + same),
        "a period": (period, b"b".join([period[:500]] * (size // 500))),
        "periods of 16 and 15": ((noise[:16] * size)[:size], (noise[:15] * size)[:size]),
        "two symbols": (bytes(chance.choices(b"ab", k=size)), bytes(chance.choices(b"ab", k=size))),
        "two emoji": (emoji[0], emoji[1]),
        "blocks shuffled": (noise, b"".join(chance.sample(blocks, len(blocks)))),
        "a block now and then": (
            noise,
            b"".join(chance.choice(blocks) + chance.randbytes(230) for _ in range(size // 246)),
        ),
        "a flaw in each 24 bytes": (noise, bytes(flaws)),
        "all but nothing left": (noise, noise[:20] + noise[-20:]),
        "all but nothing before": (noise[:20] + noise[-20:], noise),
    }


SMALL, LARGE = adversaries(16_384), adversaries(131_072)


@pytest.mark.parametrize("name", SMALL)
def test_the_work_is_linear_whatever_the_bytes_are(name: str) -> None:
    for base, target in (SMALL[name], LARGE[name]):
        pieces, total = work(base, target, is_text=name == "two emoji")
        slack = 500  # What compares the beginnings, the ends and the last matches: logarithms.
        assert pieces <= 6 * len(target) + len(base) / 16 + slack
        assert total <= 64 * len(target) + 8 * len(base) + slack
    for small, large in zip(work(*SMALL[name]), work(*LARGE[name]), strict=True):
        assert large <= 8.5 * small + slack, "eight times the bytes, eight times the work"


@pytest.mark.parametrize("size", [65_536, 1_048_576])
def test_of_what_matches_nowhere_little_is_tried(size: int) -> None:
    chance = random.Random(size)
    pieces, _ = work(chance.randbytes(size), chance.randbytes(size))
    assert pieces <= 2 * 32 * math.sqrt(size) + size / 16 + 500


def test_a_small_change_in_much_text_does_not_read_it_all_in_pieces() -> None:
    base = json.dumps(document(1_000_000)).encode()
    middle = len(base) // 2
    pieces, total = work(base, base[:middle] + b"something new instead" + base[middle + 9 :])
    assert pieces < 300
    assert total < 8 * len(base)
