"""Who is in which room, in memory: people and their members, grace, leases, and what is told."""

from __future__ import annotations

import random

import pytest

from hubbub import ClientInfo, PresenceStats
from hubbub.brokers.broker import PresenceTerms
from hubbub.brokers.presence import Change, PresenceStore, Rows
from hubbub.wire.publication import Kind

TERMS = PresenceTerms(lease_s=60.0, grace_s=10.0, told_up_to=100)
AT_ONCE = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=100)
SMALL = PresenceTerms(lease_s=60.0, grace_s=0.0, told_up_to=4)


def info(name: str) -> ClientInfo:
    """`ann.1` is a client of ann's, `.2` an anonymous one."""
    user = name.partition(".")[0]
    return ClientInfo(name, user or None)


def enter(
    store: PresenceStore, *names: str, terms: PresenceTerms = TERMS, now: float = 0
) -> Change:
    return store.enter("red", {name: info(name) for name in names}, terms, now)


def leave(
    store: PresenceStore, *names: str, terms: PresenceTerms = TERMS, now: float = 0
) -> Change:
    return store.leave("red", names, terms, now)


def expire(store: PresenceStore, now: float, terms: PresenceTerms = TERMS) -> Change:
    return store.expire("red", terms, now)


def clients(store: PresenceStore) -> list[str]:
    return sorted(each.client for each in store.snapshot("red").infos)


def names(change: Change) -> list[str]:
    return [each.client for each in change.infos]


def test_a_person_joins_with_the_first_client_and_leaves_with_the_last() -> None:
    store = PresenceStore()
    joined = enter(store, "ann.1", "ann.2", "bob.1", ".1", ".2", terms=AT_ONCE)
    assert names(joined) == ["ann.1", "bob.1", ".1", ".2"]
    assert joined.told is not None
    assert (joined.told.kind, list(joined.told.infos)) == (Kind.JOIN, list(joined.infos))
    assert store.stats("red") == PresenceStats(clients=5, users=4)
    assert names(enter(store, "ann.3", terms=AT_ONCE)) == []
    assert names(leave(store, "ann.1", "ann.3", terms=AT_ONCE)) == []
    left = leave(store, "ann.2", ".2", "nobody", "ann.2", terms=AT_ONCE)
    assert names(left) == ["ann.2", ".2"]
    assert left.told is not None
    assert left.told.kind is Kind.LEAVE
    assert clients(store) == [".1", "bob.1"]


def test_who_comes_back_in_time_has_not_left_and_is_listed_meanwhile() -> None:
    store = PresenceStore()
    enter(store, "ann.1", "bob.1")
    assert leave(store, "ann.1", now=5) == Change((), None)
    assert clients(store) == ["ann.1", "bob.1"]
    assert store.stats("red") == PresenceStats(2, 2)
    assert expire(store, 14.9) == Change((), None)
    assert enter(store, "ann.2", now=14.9) == Change((), None)
    assert clients(store) == ["ann.2", "bob.1"]
    assert expire(store, 20.0) == Change((), None)


def test_who_does_not_has_left_when_that_is_looked_at() -> None:
    store = PresenceStore()
    enter(store, "ann.1", "bob.1")
    leave(store, "ann.1", now=5)
    left = expire(store, 15.0)
    assert names(left) == ["ann.1"]
    assert expire(store, 16.0) == Change((), None), "it is told once"
    assert clients(store) == ["bob.1"]
    leave(store, "bob.1", now=20)
    assert names(expire(store, 99.0)) == ["bob.1"]
    assert store.rooms == 0


def test_a_client_that_goes_leaves_no_trace_while_others_of_its_user_are_there() -> None:
    store = PresenceStore()
    enter(store, "ann.1")
    enter(store, "ann.2")
    leave(store, "ann.1")
    assert clients(store) == ["ann.2"]
    assert store.stats("red") == PresenceStats(1, 1)


def test_a_lease_that_is_not_renewed_ends() -> None:
    store = PresenceStore()
    enter(store, "ann.1", "ann.2", "bob.1", now=0)
    enter(store, "ann.1", now=40)
    assert names(expire(store, 60)) == ["bob.1"]
    assert clients(store) == ["ann.1"]
    assert names(expire(store, 100)) == ["ann.1"]
    assert names(enter(store, "ann.1", now=101)) == ["ann.1"], "it joins anew"


def test_of_two_with_one_id_the_one_that_is_here_is_listed_last() -> None:
    """Whoever lists by ids shows it, and not the one that is away."""
    store = PresenceStore()
    store.enter("red", {"1": ClientInfo("x", "ann")}, TERMS, 0)
    leave(store, "1")
    store.enter("red", {"2": ClientInfo("x")}, TERMS, 1)
    assert [each.user for each in store.snapshot("red").infos] == ["ann", None]


def test_changes_are_numbered_and_a_snapshot_says_after_which() -> None:
    store = PresenceStore()
    first = enter(store, "ann.1", terms=AT_ONCE)
    assert first.told is not None
    assert store.snapshot("red").at == first.told.at
    second = leave(store, "ann.1", terms=AT_ONCE)
    assert second.told is not None
    assert second.told.at == store.snapshot("red").at
    assert (second.told.at or 0) > (first.told.at or 0)
    assert store.snapshot("blue").infos == ()
    assert store.stats("blue") == PresenceStats(0, 0)
    assert leave(store, "x") == expire(store, 5) == Change((), None)


def test_nothing_is_told_where_the_rule_says_so() -> None:
    store = PresenceStore()
    silent = PresenceTerms(60.0, 0.0, 0)
    assert enter(store, "ann.1", terms=silent) == Change([info("ann.1")], None)
    assert leave(store, "ann.1", terms=silent) == Change([info("ann.1")], None)


def test_a_room_that_grows_too_large_says_so_once_and_so_when_it_is_small_again() -> None:
    store = PresenceStore()
    told = [enter(store, f"u{n}.1", terms=SMALL).told for n in range(10)]
    assert [each and each.is_paused for each in told] == [None] * 4 + [True] + [None] * 5
    assert all(each is None for each in told[5:])
    assert told[4] is not None
    assert told[4].infos == ()
    told = [leave(store, f"u{n}.1", terms=SMALL).told for n in range(8)]
    assert [each and each.is_paused for each in told] == [None] * 6 + [False] + [None]
    assert told[6] is not None
    assert told[6].infos == ()
    assert told[7] is not None
    assert names(Change(told[7].infos, None)) == ["u7.1"]


def test_many_at_once_are_told_in_one_or_not_at_all() -> None:
    store = PresenceStore()
    change = enter(store, *(f"u{n}.1" for n in range(5)), terms=SMALL)
    assert len(change.infos) == 5
    assert change.told is not None
    assert (change.told.infos, change.told.is_paused) == ((), True)


@pytest.mark.parametrize("seed", range(40))
def test_who_keeps_a_list_by_what_is_told_has_it_right(seed: int) -> None:
    rng = random.Random(seed)
    store, listed, now, kept = PresenceStore(), dict[str, str](), 0.0, set[str]()
    for _ in range(300):
        now += rng.choice([0, 0, 1, 5])
        some = [f"{rng.choice(['ann', 'bob', 'eve', ''])}.{rng.randrange(6)}" for _ in range(2)]
        what = rng.choice(["enter", "leave", "expire", "renew"])
        if what == "enter":
            change = enter(store, *some, now=now)
            kept.update(some)
        elif what == "renew":
            change = enter(store, *kept, now=now)
        elif what == "leave":
            change = leave(store, *some, now=now)
            kept.difference_update(some)
        else:
            change = expire(store, now)
        if change.told is not None:
            keys = {each.key: each.client for each in change.told.infos}
            if change.told.kind is Kind.JOIN:
                assert not keys.keys() & listed.keys()
                listed |= keys
            else:
                assert keys.keys() <= listed.keys()
                listed = {key: each for key, each in listed.items() if key not in keys}
        found = store.snapshot("red").infos
        assert {each.key for each in found} == listed.keys()
        assert store.stats("red") == PresenceStats(len(found), len(listed))
    leave(store, *kept, now=now)
    expire(store, now + 60)
    assert store.rooms == 0


def test_a_room_that_was_written_down_goes_on_as_it_was() -> None:
    """Each step is done in one store, and in a new one that has read what the last has written."""
    rng = random.Random(5)
    one, rows = PresenceStore(), Rows()
    for now in range(300):
        name, verb = f"{rng.choice('abcdef')}.{rng.randrange(3)}", rng.randrange(3)
        other = PresenceStore()
        other.load("red", rows)
        terms = rng.choice([TERMS, SMALL])
        changes = [
            (enter(store, name, terms=terms, now=now), leave(store, name, terms=terms, now=now))[0]
            if verb == 2
            else (enter, leave)[verb](store, name, terms=terms, now=now)
            for store in (one, other)
        ]
        assert changes[0] == changes[1]
        assert expire(one, now) == expire(other, now)
        rows = other.dump("red")
        assert rows == one.dump("red")
        assert other.snapshot("red") == one.snapshot("red")
        assert other.stats("red") == one.stats("red")
    assert PresenceStore().dump("red") == Rows([], [])
