"""Stats: counters and their snapshot."""

from __future__ import annotations

import msgspec

from hubbub.stats import MAX_WORDS, OTHER, Stats


def test_the_snapshot_has_every_counter_and_starts_at_nothing() -> None:
    snapshot = Stats().snapshot()
    assert set(snapshot) == set(Stats.__slots__)
    by_word = [snapshot.pop(name) for name in ("refused", "refused_gets", "refused_api")]
    assert by_word == [{}, {}, {}]
    assert set(snapshot.values()) == {0}


def test_refusals_of_the_api_are_counted_by_their_word() -> None:
    stats = Stats()
    for code in ("unauthorized", "too_many_requests", "unauthorized"):
        stats.refuse_api(code)
    assert stats.refused_api == {"unauthorized": 2, "too_many_requests": 1}
    assert stats.refused == {}


def test_refusals_are_counted_by_their_word() -> None:
    stats = Stats()
    for code in ("unauthorized", "origin_refused", "unauthorized"):
        stats.refuse(code)
    stats.refuse("unauthorized", is_get=True)
    assert stats.refused == {"unauthorized": 2, "origin_refused": 1}
    assert stats.refused_gets == {"unauthorized": 1}


def test_words_that_clients_can_invent_do_not_fill_the_memory() -> None:
    stats = Stats()
    for number in range(1000):
        stats.refuse(f"no such user: {number}")
        stats.refuse("no such user: 7")
    assert len(stats.refused) == MAX_WORDS + 1
    assert stats.refused["no such user: 7"] == 1001
    assert stats.refused[OTHER] == 1000 - MAX_WORDS


def test_a_snapshot_does_not_change_any_more_and_json_can_carry_it() -> None:
    stats = Stats()
    stats.messages_in = 7
    stats.refuse("forbidden")
    snapshot = stats.snapshot()
    stats.messages_in += 1
    stats.refuse("forbidden")
    assert snapshot["messages_in"] == 7
    assert snapshot["refused"] == {"forbidden": 1}
    assert msgspec.json.decode(msgspec.json.encode(snapshot)) == snapshot
