"""What `hubbub connect` shows: nothing that a terminal would obey, whatever the other side sends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from hubbub.cli import screen as screens
from hubbub.cli.screen import (
    JsonScreen,
    Output,
    PlainScreen,
    PromptScreen,
    as_json,
    as_line,
    as_reason,
    as_text,
    lost_line,
    not_sent_line,
)
from hubbub.model import Close

CONTROLS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cc"]
BIDI = [
    chr(code)
    for code in range(0x110000)
    if unicodedata.bidirectional(chr(code))
    in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
]
OBEYED = [*CONTROLS, *BIDI, "\u061c", "\u200e", "\u200f", "\u2028", "\u2029", "\ud800", "\udfff"]


def memory(encoding: str = "utf-8") -> tuple[io.BytesIO, Output]:
    raw = io.BytesIO()
    return raw, Output(io.TextIOWrapper(raw, encoding=encoding))


@pytest.fixture
def pipe() -> Iterator[tuple[int, Output]]:
    """The end of a pipe to read from, and an output into it."""
    read_end, write_end = os.pipe()
    with open(write_end, "w", encoding="utf-8") as stream:
        yield read_end, Output(stream)


def test_the_lists_are_what_they_should_be() -> None:
    assert len(CONTROLS) == 65
    assert len(BIDI) == 9


@pytest.mark.parametrize("char", OBEYED)
def test_what_a_terminal_obeys_becomes_an_escape(char: str) -> None:
    shown = as_text(f"a{char}b")
    assert shown == f"a{ascii(char)[1:-1]}b"
    line = as_json({"data": f"a{char}b"}, "utf-8")
    assert char not in line
    assert json.loads(line) == {"data": f"a{char}b"}


def test_what_people_write_stays_as_it_is() -> None:
    text = "grüße 😀 日本 مرحبا 👨\u200d👩 می\u200cخواهم a\xa0b \\n"
    assert as_text(text) == text
    assert text in json.loads(as_json([text], "utf-8"))
    assert "grüße 😀" in as_json([text], "utf-8")


def test_how_binary_messages_look() -> None:
    assert as_line(b"\x00\xff") == "(2 bytes) 00 ff"
    assert as_line(b"x" * 65).endswith(" …")


def test_a_reason_is_bounded() -> None:
    assert as_reason("x" * 501) == "x" * 500 + "…"
    assert as_reason("a\nb") == "a\\nb"
    assert lost_line(Close(1012, "re\x1bstart"), 0.5) == (
        "connection lost (1012 re\\x1bstart); again in 0.5 s"
    )


@pytest.mark.parametrize(
    ("lines", "uncertain", "expected"),
    [
        (1, 0, "1 line was not sent"),
        (1, 1, "1 line may not have arrived"),
        (5, 0, "5 lines were not sent"),
        (5, 1, "4 lines were not sent, and 1 more may not have arrived"),
        (5, 4, "1 line was not sent, and 4 more may not have arrived"),
        (5, 5, "5 lines may not have arrived"),
    ],
)
def test_how_lost_lines_are_told(lines: int, uncertain: int, expected: str) -> None:
    assert not_sent_line(lines, uncertain) == expected


@pytest.mark.parametrize(
    ("encoding", "plain", "escaped"),
    [
        ("cp1252", "grüße €", False),
        ("latin-1", "grüße \\u20ac", True),
        ("ascii", "gr\\xfc\\xdfe \\u20ac", True),
    ],
)
def test_an_encoding_that_lacks_a_character(encoding: str, plain: str, escaped: bool) -> None:
    raw, out = memory(encoding)
    _, err = memory()
    PlainScreen(out, err).received("grüße €")
    assert raw.getvalue().decode(encoding) == f"{plain}{os.linesep}"
    raw.truncate(0)
    JsonScreen(out, err).received("grüße €")
    event = raw.getvalue().lstrip(b"\0").decode(encoding)
    assert json.loads(event)["data"] == "grüße €"
    assert ("\\u00fc" in event) == escaped


def test_a_stream_that_is_closed_takes_everything_and_says_nothing() -> None:
    out = Output(None)
    out.print("nobody")
    assert (out.error, out.is_terminal, out.encoding) == (None, False, "utf-8")


def test_a_reader_that_has_gone_is_an_error_that_is_kept(pipe: tuple[int, Output]) -> None:
    read_end, out = pipe
    os.close(read_end)
    out.print("one")
    assert isinstance(out.error, BrokenPipeError)
    out.print("two")


def test_a_reader_that_goes_is_noticed_without_a_write(pipe: tuple[int, Output]) -> None:
    read_end, out = pipe

    async def watch() -> None:
        watching = asyncio.create_task(out.until_it_fails())
        await asyncio.sleep(0.01)
        assert not watching.done()
        os.close(read_end)
        await asyncio.wait_for(watching, 10)

    asyncio.run(watch())
    assert isinstance(out.error, BrokenPipeError)


def test_a_long_line_waits_for_a_slow_reader_and_arrives_whole(pipe: tuple[int, Output]) -> None:
    read_end, out = pipe
    text = "x" * 300_000
    writing = threading.Thread(target=out.print, args=(text,))
    writing.start()
    with open(read_end, encoding="utf-8") as reading:
        assert reading.readline() == text + "\n"
    writing.join(10)
    assert out.error is None


def test_a_line_that_nobody_takes_can_be_given_up(pipe: tuple[int, Output]) -> None:
    read_end, out = pipe
    out.is_stopping = lambda: True
    out.print("x" * 1_000_000)
    assert out.error is not None
    os.close(read_end)


# The prompt.


class Typing:
    """A prompt that is shown, and answered, when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, doc: str = "GNU readline") -> None:
        self.written, output = memory()
        self.screen = PromptScreen(output)
        self.is_asked, self.is_shown, self.is_typed = (threading.Event() for _ in range(3))
        self.lines: list[str | None] = []
        self._hook: Callable[[], None] = lambda: None
        library = ModuleType("readline", doc)
        library.__dict__["set_pre_input_hook"] = self._set_hook
        library.__dict__["get_line_buffer"] = str
        monkeypatch.setattr(self.screen, "_readline", library)
        monkeypatch.setattr("builtins.input", self._input)
        self.reading = threading.Thread(target=lambda: self.lines.append(self.screen.read()))

    def _set_hook(self, hook: Callable[[], None]) -> None:
        self._hook = hook

    def _input(self, prompt: str) -> str:
        self.is_asked.set()
        assert self.is_shown.wait(10)
        self._hook()
        assert self.is_typed.wait(10)
        return "typed"


def test_who_leaves_waits_for_a_prompt_that_is_about_to_come_and_for_no_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screens, "_TAKE_S", 10.0)
    typing = Typing(monkeypatch)
    typing.reading.start()
    assert typing.is_asked.wait(10)
    leaving = threading.Thread(target=typing.screen.leave)
    leaving.start()
    leaving.join(0.05)
    assert leaving.is_alive()
    typing.is_shown.set()
    leaving.join(10)
    assert not leaving.is_alive()
    assert typing.lines == []
    typing.is_typed.set()
    typing.reading.join(10)
    assert typing.lines == ["typed"]
    assert typing.screen.read() is None, "there is no other prompt"


def test_a_line_is_printed_above_a_prompt_that_is_about_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screens, "_TAKE_S", 10.0)
    typing = Typing(monkeypatch)
    typing.reading.start()
    assert typing.is_asked.wait(10)
    printing = threading.Thread(target=typing.screen.received, args=("news",))
    printing.start()
    printing.join(0.05)
    assert (printing.is_alive(), typing.written.getvalue()) == (True, b"")
    typing.is_shown.set()
    printing.join(10)
    assert typing.written.getvalue() == b"\r\x1b[K< news\n> "
    typing.is_typed.set()
    typing.reading.join(10)


def test_who_leaves_waits_for_no_prompt_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "_TAKE_S", 0.01)
    typing = Typing(monkeypatch)
    typing.reading.start()
    assert typing.is_asked.wait(10)
    typing.screen.leave()
    typing.is_shown.set()
    typing.is_typed.set()
    typing.reading.join(10)
    assert typing.screen.read() is None


def test_libedit_does_not_say_when_its_prompt_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screens, "_TAKE_S", 60.0)
    typing = Typing(monkeypatch, "using libedit readline")
    typing.reading.start()
    assert typing.is_asked.wait(10)
    typing.screen.leave()
    typing.is_shown.set()
    typing.is_typed.set()
    typing.reading.join(10)
    assert typing.lines == ["typed"]


def test_after_the_leaving_there_is_no_prompt() -> None:
    screen = PromptScreen(memory()[1])
    screen.leave()
    assert screen.read() is None
    assert not screen.is_ended, "there could have been more"
