"""A connection that is watched, given up and made again, whatever the server is."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers import reconnecting
from hubbub.brokers.reconnecting import AWAY, Reconnecting, reason_of, unusable
from started_hub import until

pytestmark = pytest.mark.anyio


class Feed(Reconnecting):
    """A feed whose server does what a test says."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        super().__init__(
            lambda error: BrokerUnavailable(str(error) or type(error).__name__),
            lambda: self.rows.append("lost"),
            lambda: self.rows.append("back"),
        )
        self.heard = self.asked = self.tries = self.refusals = 0

    async def _connect(self) -> None:
        self.tries += 1
        if self.refusals:
            self.refusals -= 1
            raise OSError("refused")

    async def _drop(self) -> None:
        self.rows.append("drop")

    async def _until_broken(self) -> BaseException:
        (silence,) = await asyncio.gather(self._watch(), return_exceptions=True)
        assert isinstance(silence, TimeoutError)
        return silence

    def _go_down(self) -> None:
        self.rows.append("down")

    def _give_up(self, why: str) -> None:
        self.rows.append(why)

    @property
    def _heard(self) -> int:
        return self.heard

    async def _ask_for_a_sign(self) -> None:
        self.asked += 1


@pytest.fixture
async def feed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feed]:
    for name, seconds in (("PING_S", 0.01), ("LOOK_S", 0.01), ("SILENCE_S", 0.05)):
        monkeypatch.setattr(reconnecting, name, seconds)
    made = Feed()
    task = asyncio.create_task(made._run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_that_says_nothing_is_asked_is_silent_and_is_given_up(feed: Feed) -> None:
    await until(lambda: feed.is_silent)
    assert (feed.asked, feed.rows) == (1, [])
    await until(lambda: "back" in feed.rows)
    assert feed.rows[:5] == ["down", AWAY, "lost", "drop", "back"]
    assert not feed.is_silent


async def test_a_sign_ends_the_silence(feed: Feed) -> None:
    await until(lambda: feed.is_silent)
    while feed.is_silent:
        feed.heard += 1
        await asyncio.sleep(0.001)
    assert feed.rows == []


async def test_one_that_cannot_be_had_is_tried_less_and_less_often(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr(reconnecting, "LONGEST_DELAY_S", 0.2)
    feed.refusals = 4
    connect = feed._connect

    async def note() -> None:
        delays.append(feed._delay_s)
        await connect()

    monkeypatch.setattr(feed, "_connect", note)
    await until(lambda: "back" in feed.rows)
    assert delays == [0.1, 0.2, 0.2, 0.2, 0.2]
    assert feed.rows.count("drop") == 5


async def test_one_that_cannot_be_had_is_tried_without_end(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_DELAY_S", "LONGEST_DELAY_S"):
        monkeypatch.setattr(reconnecting, name, 0.0)
    feed._delay_s, feed.refusals = 0.0, 1000
    await until(lambda: "back" in feed.rows)
    assert feed.tries == 1001


def caused(error: Exception, cause: BaseException) -> Exception:
    """Return an error that another has led to, as libraries raise them."""
    error.__context__ = cause
    return error


def instead(error: Exception, cause: BaseException) -> Exception:
    """Return an error that is raised in place of another, which says nothing about it."""
    error.__context__ = cause
    error.__suppress_context__ = True
    return error


def text_of(number: int) -> str:
    """Return an error of the system as asyncio raises it for an address."""
    return f"[Errno {number}] Connect call failed"


@pytest.mark.parametrize(
    ("error", "reason", "is_nobody"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), "Connection refused", True),
        (OSError("Multiple: [Errno 111] one, [Errno 113] two"), "Connection refused", True),
        (caused(ValueError("Error 111 connecting."), OSError(111, "")), "Connection refused", True),
        (OSError(f"{text_of(101)}, {text_of(111)}"), "Connection refused", True),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory", True),
        (OSError(24, "Too many open files"), "Too many open files", False),
        (ConnectionResetError(104, "reset"), "Connection reset by peer", False),
        (OSError(101, "unreachable"), "Network is unreachable", False),
        (instead(ValueError("wrong name"), ConnectionRefusedError(111, "")), "wrong name", False),
        (socket.gaierror(-2, "no such name"), "no such name", False),
        (ssl.SSLError(1, "no certificate"), "no certificate", False),
        (ValueError("wrong password."), "wrong password.", False),
        (TimeoutError(), "TimeoutError", False),
        (FileNotFoundError(2, "No such file", "a.creds"), "a.creds", False),
        (OSError(), "OSError", False),
    ],
)
def test_a_start_that_fails_says_why_and_what_to_look_at(
    error: Exception, reason: str, is_nobody: bool
) -> None:
    assert reason in reason_of(error)
    meaning = BrokerUnavailable(reason_of(error))
    text = str(unusable("valkey://here", error, meaning))
    assert text.startswith("the broker at valkey://here cannot be used: ")
    assert text.endswith("; does the server run, and listen there?") is is_nobody
