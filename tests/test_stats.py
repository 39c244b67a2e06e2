"""Stats: counters and their snapshot."""

from __future__ import annotations

import msgspec

from hubbub.stats import BOUNDS_S, MAX_WORDS, OTHER, Histogram, Stats


def test_the_snapshot_has_every_counter_and_starts_at_nothing() -> None:
    snapshot = Stats().snapshot()
    assert set(snapshot) == set(Stats.__slots__)
    for name in ("refused", "refused_gets", "refused_api", "closes", "closes_by_peer"):
        assert snapshot.pop(name) == {}
    for name in ("delivery_lag", "publication_lag", "loop_lag"):
        assert snapshot.pop(name) == {"count": 0, "sum_s": 0.0}
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


def test_ends_are_counted_by_the_name_of_their_code_and_by_who_closed() -> None:
    stats = Stats()
    for code in (1012, 1012, 4999, 2000):
        stats.end(code, by_server=True)
    stats.end(1006, by_server=False)
    assert stats.closes == {"service_restart": 2, "application": 1, "other": 1}
    assert stats.closes_by_peer == {"abnormal": 1}


def test_a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram()
    for place, bound in enumerate(BOUNDS_S):
        histogram.note(bound)
        histogram.note(bound * 1.0001, times=2)
        assert histogram.counts[place] == (1 if place == 0 else 3)
    assert histogram.counts[-1] == 2
    histogram.note(1e9)
    assert histogram.counts[-1] == 3
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))


def test_a_histogram_is_a_number_and_a_sum_in_json() -> None:
    histogram = Histogram()
    histogram.note(0.5, times=3)
    histogram.note(0.0)
    assert histogram.snapshot() == {"count": 4, "sum_s": 1.5}


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
