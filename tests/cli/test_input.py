"""Where the lines of `hubbub connect` come from."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from hubbub.cli.input import FileSource, lines_of


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the end to read from, which is closed afterwards, and the end to write to."""
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)


def test_lines_are_read_whole_whatever_the_pieces(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    source = FileSource(read_end)
    os.write(write_end, b"one\ntw")
    assert source.read() == "one"
    os.write(write_end, b"o\r\n\n\xff")
    assert source.read() == "two"
    assert (source.accepted, source.is_ended) == (3, False)
    os.close(write_end)
    assert [source.read() for _ in range(4)] == ["", "\ufffd", None, None]
    assert (source.accepted, source.is_ended) == (4, True)


def test_what_was_read_and_not_taken_is_counted(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    source = FileSource(read_end)
    os.write(write_end, b"one\ntwo\nthree")
    assert source.read() == "one"
    assert source.accepted == 2
    os.close(write_end)


def test_the_first_line_that_is_not_utf_8_is_named(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    source = FileSource(read_end)
    os.write(write_end, "grüße\n".encode() + b"a\xffb\nc\xff\nend\n")
    os.close(write_end)
    assert source.read() == "grüße"
    assert source.first_repaired is None
    assert [source.read(), source.read(), source.read()] == ["a\ufffdb", "c\ufffd", "end"]
    assert source.first_repaired == 2


def test_a_line_without_an_end_is_bounded(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    source = FileSource(read_end, max_line_bytes=10)
    os.write(write_end, b"short\n" + b"x" * 11)
    assert source.read() == "short"
    os.write(write_end, b"x")
    with pytest.raises(ValueError, match="line 2 is longer than 10 bytes"):
        source.read()
    os.close(write_end)


def test_a_long_line_in_pieces_is_one_line(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    source = FileSource(read_end)
    for _ in range(4):
        os.write(write_end, b"x" * 10_000)
    os.write(write_end, b"\nshort\n")
    os.close(write_end)
    assert [source.read(), source.read(), source.read()] == ["x" * 40_000, "short", None]


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    os.set_blocking(read_end, False)
    source = FileSource(read_end)

    async def collect() -> list[str]:
        asyncio.get_running_loop().call_later(0.05, os.write, write_end, b"late\n")
        asyncio.get_running_loop().call_later(0.1, os.close, write_end)
        return [line async for line in lines_of(source)]

    assert asyncio.run(collect()) == ["late"]


class Failing:
    """A source that gives one line and then fails."""

    accepted = 1
    is_ended = False
    first_repaired: int | None = None

    def __init__(self) -> None:
        self._answers: list[str] = ["one"]

    def read(self) -> str | None:
        if self._answers:
            return self._answers.pop()
        raise OSError(5, "Input/output error")


def test_what_the_reading_raises_comes_out_where_the_lines_are_taken() -> None:
    seen: list[str] = []

    async def collect() -> None:
        async for line in lines_of(Failing()):
            seen.append(line)

    with pytest.raises(OSError, match="Input/output error"):
        asyncio.run(collect())
    assert seen == ["one"]


def test_not_more_than_one_line_is_read_ahead() -> None:
    class Counting(Failing):
        reads = 0

        def read(self) -> str | None:
            self.reads += 1
            return str(self.reads)

    source = Counting()

    async def take_one() -> None:
        async for _ in lines_of(source):
            await asyncio.sleep(0.1)
            assert source.reads <= 2
            return

    asyncio.run(take_one())
