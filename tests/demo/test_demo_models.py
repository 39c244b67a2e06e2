"""The demo's models: no web, no sockets, so a clock or a die is an argument."""

from __future__ import annotations

import random
from datetime import datetime

import pytest

from hubbub.demo.models import system
from hubbub.demo.models.channels import LINGER_S, TICKER, Channels
from hubbub.demo.models.chat_log import MAX_LINES, ChatLog
from hubbub.demo.models.clock import iso_now
from hubbub.demo.models.market import MAX_TICKS, SHARES, Market
from hubbub.demo.models.names import (
    MAX_NAME_CHARACTERS,
    MAX_SHOWN_NAMES,
    clean_name,
    invent_name,
    roster,
)
from hubbub.demo.models.notification import KINDS, MAX_KEPT, SAMPLES, NotificationBoard
from hubbub.demo.models.pace import Pace
from hubbub.demo.models.system import SystemMonitor
from hubbub.demo.models.text import one_line
from hubbub.demo.models.world import ARENAS, World
from hubbub.wire.frame import encode


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("ann", "ann"),
        ("  Ann   Lee ", "Ann Lee"),
        ("Zoë 🦊", "Zoë 🦊"),
        ("a: b", "a: b"),
        ("line\nbreak\x00\u202e\u2028", "line break"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("<img src=x>", "<img src=x>"),
        ('{"type":"you"}', '{"type":"you"}'),
        ("\ud800", ""),
        ("", ""),
        (" \u2029\u200b ", ""),
    ],
)
def test_a_name_is_one_short_line_that_can_be_seen(raw: str, name: str) -> None:
    assert clean_name(raw) == name


def test_a_name_is_cut() -> None:
    assert clean_name("x" * 100) == "x" * MAX_NAME_CHARACTERS
    assert clean_name("x" * (MAX_NAME_CHARACTERS - 1) + " yz") == "x" * (MAX_NAME_CHARACTERS - 1)


def test_invented_names_are_clean() -> None:
    rng = random.Random(1)
    names = {invent_name(rng) for _ in range(50)}
    assert len(names) > 20
    assert all(clean_name(name) == name for name in names)
    assert invent_name()


def test_a_roster_counts_everybody_and_names_the_first() -> None:
    assert roster(["bob", "Ann", "bob"]) == {
        "count": 3,
        "names": [{"name": "Ann", "times": 1}, {"name": "bob", "times": 2}],
    }
    many = roster(f"{number:03}" for number in range(1000))
    assert many["count"] == 1000
    shown = many["names"]
    assert isinstance(shown, list)
    assert len(shown) == MAX_SHOWN_NAMES


def test_times_are_iso_8601_with_a_zone() -> None:
    assert datetime.fromisoformat(iso_now()).tzinfo is not None


def test_a_line_is_no_longer_than_its_limit_however_much_there_is() -> None:
    assert one_line("x" * 10_000, 5) == "xxxxx"
    assert one_line("a\r\n" * 10_000, 5) == "a a a"
    assert one_line("\ud800" * 10_000, 5) == ""


def test_a_chat_log_keeps_the_last_lines() -> None:
    log = ChatLog()
    for number in range(MAX_LINES + 5):
        line = log.add("said", "ann", str(number))
    assert line.text == str(MAX_LINES + 4)
    assert [line.text for line in log.lines()] == [str(n) for n in range(5, MAX_LINES + 5)]
    assert [line.number for line in log.lines()] == list(range(6, MAX_LINES + 6))


def test_a_notification_board_keeps_the_last() -> None:
    board = NotificationBoard()
    for number in range(MAX_KEPT + 3):
        board.post("info", f" number {number} ")
    recent = board.recent()
    assert len(recent) == MAX_KEPT
    assert recent[-1].message == f"number {MAX_KEPT + 2}"
    assert [kept.number for kept in recent] == list(range(4, MAX_KEPT + 4))
    assert set(SAMPLES) == set(KINDS)


def test_fault_29_what_a_board_keeps_can_be_sent() -> None:
    """A lone surrogate, which JSON can spell and UTF-8 cannot carry, would be there for newcomers."""
    board = NotificationBoard()
    notification = board.post("info", "x\ud800\n\u202ey 👩\u200d🚀")
    assert notification.message == "x y 👩\u200d🚀"
    assert b"x y" in encode(board.recent()).payload


@pytest.mark.parametrize(
    ("kind", "message", "why"),
    [
        ("loud", "hello", "type must be one of info, success"),
        (None, "hello", "type must be"),
        (["info"], "hello", "type must be"),
        ("info", "  ", "1 to 200"),
        ("info", "x" * 201, "1 to 200"),
        ("info", "\ud800\u202e", "1 to 200"),
        ("info", 7, "1 to 200"),
    ],
)
def test_a_notification_that_is_none_is_refused(kind: object, message: object, why: str) -> None:
    board = NotificationBoard()
    with pytest.raises(ValueError, match=why):
        board.post(kind, message)
    assert board.recent() == []


def test_a_market_walks_and_stays_near_home() -> None:
    market = Market(random.Random(7))
    for _ in range(2000):
        tick = market.tick()
    prices = tick["prices"]
    assert isinstance(prices, dict)
    assert list(prices) == list(SHARES)
    assert all(abs(prices[name] - home) < 40 for name, home in SHARES.items())
    assert len(market.history()) == MAX_TICKS
    assert market.history()[-1] == tick


def test_a_player_is_in_one_arena_and_keeps_the_colour() -> None:
    world = World(random.Random(3))
    first = world.enter("1", "ann", "meadow")
    other = world.enter("2", "bob", "meadow")
    assert first.hue != other.hue
    assert world.players("meadow") == [first, other]
    again = world.enter("1", "ann", "attic")
    assert again.hue == first.hue
    assert world.players("meadow") == [other]
    assert world.arena_of("1") == "attic"
    assert world.leave("1") == again
    assert world.leave("1") is None
    assert all(not world.players(arena) for arena in ARENAS if arena != "meadow")


def test_a_move_ends_at_the_edge() -> None:
    world = World()
    world.enter("1", "ann", "meadow")
    player = world.move("1", 7.0, -1e300)
    assert player is not None
    assert (player.x, player.y) == (1.0, 0.0)
    assert world.move("nobody", 0.5, 0.5) is None
    with pytest.raises(KeyError):
        world.enter("1", "ann", "moon")
    assert world.arena_of("1") == "meadow", "a wrong arena changes nothing"


def test_the_messages_of_each_channel_are_numbered() -> None:
    channels = Channels()
    said = [channels.say(channel, "ann", "hello").number for channel in ("a", "b", "a", "a")]
    assert said == [1, 1, 2, 3]
    message = channels.say("b", "bob", "well")
    assert (message.number, message.name, message.text) == (2, "bob", "well")
    assert datetime.fromisoformat(message.time).tzinfo is not None


def test_the_ticker_goes_on_for_a_while_when_nobody_is_there() -> None:
    """Else who is alone on the page and is cut off would have missed nothing."""
    channels = Channels(Market(random.Random(7)))
    assert channels.tick(0, 100.0) is None, "nobody has ever been there"
    first = channels.tick(1, 100.0)
    assert first is not None
    assert (first.number, first.name) == (1, TICKER)
    assert [part.split()[0] for part in first.text.split(" · ")] == list(SHARES)
    channels.left(200.0)
    late = channels.tick(0, 200.0 + LINGER_S)
    assert late is not None
    assert late.number == 2
    assert channels.tick(0, 200.1 + LINGER_S) is None
    again = channels.tick(1, 900.0)
    assert again is not None
    assert again.number == 3


def test_a_pace_is_so_many_times_in_any_while() -> None:
    pace = Pace(2, 5.0)
    at = (0.0, 1.0, 4.9, 5.0, 5.5, 6.0, 9.9, 100.0, 100.0, 100.0)
    allowed = [True, True, False, True, False, True, False, True, True, False]
    assert [pace.allows(now) for now in at] == allowed


def stats(clients: int, messages_in: int, messages_out: int) -> dict[str, int]:
    return {"clients": clients, "messages_in": messages_in, "messages_out": messages_out}


def test_s22_a_monitor_turns_counters_into_rates() -> None:
    clock, cpu = iter([100.0, 102.0, 102.5]), iter([1.0, 1.5, 1.6])
    monitor = SystemMonitor(lambda: next(clock), lambda: next(cpu))
    first = monitor.read([stats(2, 10, 40), stats(1, 0, 20)])
    assert (first["cpu"], first["clients"]) == (25.0, 3)
    assert (first["in"], first["out"]) == (5.0, 30.0)
    second = monitor.read([stats(0, 10, 45), stats(0, 0, 20)])
    assert (second["cpu"], second["clients"]) == (20.0, 0)
    assert (second["in"], second["out"]) == (0.0, 10.0)
    assert monitor.history() == [first, second]
    memory = first["memory"]
    assert isinstance(memory, float)
    assert memory > 1


def test_a_monitor_works_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "psutil", None)
    reading = SystemMonitor().read([])
    memory, machine = reading["memory"], reading["machine"]
    assert isinstance(memory, float)
    assert memory > 1
    assert isinstance(machine, float)
    assert machine >= 0


def test_memory_and_load_are_told_as_well_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("there is no such thing here")

    monkeypatch.setattr(system, "psutil", None)
    monkeypatch.setattr("builtins.open", refuse)
    assert system.memory_mib() > 1
    monkeypatch.setattr("os.getloadavg", lambda: (1e6, 0.0, 0.0))
    assert system.machine_percent() == 100
    monkeypatch.setattr("os.getloadavg", refuse)
    assert system.machine_percent() is None
