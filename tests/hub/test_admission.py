"""Admission: places, ids, networks, and the end of all of them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Handshake, Hub, Identity, Refused, Settings
from hubbub.hub.admission import RETRY_AFTER_S, Admission, network_of
from hubbub.hub.core import core_of
from hubbub.hub.session import ClientSession
from hubbub.testing import connect

pytestmark = pytest.mark.anyio

NOBODY = Identity()
PLAIN = Handshake("/", {})


def wishing(client_id: str) -> Handshake:
    return Handshake("/", {}, query_string=f"id={client_id}")


def admission(*, is_draining: bool = False, **settings: Any) -> Admission:
    table: dict[str, ClientSession] = {}
    return Admission(Settings(**settings), table, lambda: is_draining)


def test_places_are_counted_and_those_held_are_taken() -> None:
    door = admission(max_clients=1)
    with door.reserve(None, 0.0) as first, door.reserve(None, 0.0) as second:
        first.hold_id(PLAIN, NOBODY)
        for attempt in (lambda: second.hold_id(PLAIN, NOBODY), lambda: door.reserve(None, 0.0)):
            with pytest.raises(Refused) as caught:
                attempt()
            assert (caught.value.status, caught.value.code) == (503, "too_many_clients")
            assert caught.value.headers == {"Retry-After": str(RETRY_AFTER_S)}
    with door.reserve(None, 0.0) as third:
        third.hold_id(PLAIN, NOBODY)


def test_nobody_is_taken_once_it_is_closed() -> None:
    with pytest.raises(Refused) as caught:
        admission(is_draining=True).reserve(None, 0.0)
    assert (caught.value.status, caught.value.code) == (503, "shutting_down")


def test_a_hub_that_begins_its_end_takes_nobody_whose_handshake_is_under_way() -> None:
    state = {"draining": False}
    door = Admission(Settings(), {}, lambda: state["draining"])
    with door.reserve(None, 0.0) as place:
        state["draining"] = True
        with pytest.raises(Refused, match="shutting_down"):
            place.hold_id(PLAIN, NOBODY)


def test_ids_are_generated_unless_wishing_is_allowed() -> None:
    door = admission()
    with ExitStack() as stack:
        places = [stack.enter_context(door.reserve(None, 0.0)) for _ in range(100)]
        ids = {place.hold_id(wishing("mine"), NOBODY) for place in places}
    assert len(ids) == 100
    assert "mine" not in ids
    with admission(client_id_from_query=True).reserve(None, 0.0) as place:
        assert place.hold_id(wishing("mine"), NOBODY) == "mine"


def test_an_id_that_is_held_is_nobody_elses() -> None:
    door = admission(client_id_from_query=True)
    with door.reserve(None, 0.0) as first, door.reserve(None, 0.0) as second:
        first.hold_id(wishing("mine"), NOBODY)
        with pytest.raises(Refused) as caught:
            second.hold_id(wishing("mine"), Identity(user="ann"))
        assert (caught.value.status, caught.value.code) == (409, "id_in_use")
    with door.reserve(None, 0.0) as third:
        assert third.hold_id(wishing("mine"), Identity(user="ann")) == "mine"


FULL = f"too_many_from_address, 503, {RETRY_AFTER_S}"


def refusal_of(door: Admission, address: str | None) -> str | None:
    try:
        door.reserve(address, 0.0)
    except Refused as refusal:
        return f"{refusal.code}, {refusal.status}, {refusal.headers['Retry-After']}"
    return None


def test_handshakes_in_progress_count_for_their_address() -> None:
    door = admission(max_clients_per_address=2)
    with door.reserve("192.0.2.1", 0.0):
        assert refusal_of(door, "192.0.2.1") is None
        with door.reserve("::ffff:192.0.2.1", 0.0):
            assert door.in_progress == 2
            assert refusal_of(door, "192.0.2.1") == FULL
            assert refusal_of(door, "192.0.2.2") is None
            assert refusal_of(door, None) is None
    assert refusal_of(door, "192.0.2.1") is None
    assert door.in_progress == door.counted_networks() == 0


def test_who_has_no_known_address_is_not_limited() -> None:
    door = admission(max_clients_per_address=1)
    for address in (None, "", "a unix socket"):
        with door.reserve(address, 0.0), door.reserve(address, 0.0):
            assert refusal_of(door, address) is None


def test_without_a_limit_no_address_is_counted() -> None:
    door = admission()
    with door.reserve("192.0.2.1", 0.0):
        assert door.counted_networks() == 0
        assert refusal_of(door, "192.0.2.1") is None


@pytest.mark.parametrize(
    ("limit_s", "lag_s", "is_refused"),
    [(None, 100.0, False), (0.5, 0.5, False), (0.5, 0.51, True)],
)
def test_nobody_comes_in_while_the_loop_is_late(
    limit_s: float | None, lag_s: float, is_refused: bool
) -> None:
    door = admission(max_loop_lag_s=limit_s)
    if not is_refused:
        with door.reserve("192.0.2.1", lag_s):
            assert door.in_progress == 1
        return
    with pytest.raises(Refused, match="503 overloaded") as caught:
        door.reserve("192.0.2.1", lag_s)
    assert caught.value.headers == {"Retry-After": str(RETRY_AFTER_S)}


async def test_clients_count_for_their_address_until_they_leave() -> None:
    hub = Hub(max_clients_per_address=2)
    await hub.start()
    first, second = [connect(hub, address=f"2001:db8::{host}") for host in (1, 2)]
    with pytest.raises(Refused, match="too_many_from_address"):
        connect(hub, address="2001:db8::3")
    connect(hub, address="2001:db8:0:1::3")
    first.client.address = "written over by the application"
    first.close()
    third = connect(hub, address="2001:db8::3")
    with pytest.raises(Refused, match="too_many_from_address"):
        connect(hub, address="2001:db8::4")
    for peer in (second, third):
        peer.transport.drop_connection()
    assert core_of(hub).admission.counted_networks() == 1
    await hub.stop()
    assert core_of(hub).admission.counted_networks() == 0


def test_a_handshake_of_a_loop_that_is_gone_takes_nothing_from_the_next() -> None:
    door = admission(max_clients_per_address=1)
    with ExitStack() as stack:
        stack.enter_context(door.reserve("192.0.2.1", 0.0))
        door.reset()
        with door.reserve("192.0.2.1", 0.0):
            stack.close()
            assert refusal_of(door, "192.0.2.1") == FULL


async def test_an_id_may_be_taken_over_by_its_own_user_only() -> None:
    hub = Hub(client_id_from_query=True)
    await hub.start()
    connect(hub, user="ann", client_id="hers")
    connect(hub, client_id="anonymous")
    door = core_of(hub).admission
    for taken, user in (("hers", "bob"), ("hers", None), ("anonymous", None)):
        with door.reserve(None, 0.0) as place, pytest.raises(Refused, match="409"):
            place.hold_id(wishing(taken), Identity(user=user))
    with door.reserve(None, 0.0) as place:
        assert place.hold_id(wishing("hers"), Identity(user="ann")) == "hers"
    await hub.stop()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, None),
        ("", None),
        ("testclient", None),
        ("unknown", None),
        ("192.0.2.1:80", None),
        ("192.0.2.1, 192.0.2.2", None),
        ("1" * 100_000, None),
    ],
)
def test_what_an_address_counts_as(address: str | None, network: str | None) -> None:
    assert network_of(address) == network


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_a_network_count_as_one(address: object, host: int) -> None:
    network = int(address) >> 64 << 64  # type: ignore[call-overload]
    is_mapped = network == 0
    one, other = (network_of(str(type(address)(network | low))) for low in (1, host))  # type: ignore[call-arg]
    assert is_mapped or one == other


@given(st.lists(st.tuples(st.sampled_from("123"), st.booleans())))
def test_counts_are_right_and_what_has_gone_leaves_nothing(steps: list[tuple[str, bool]]) -> None:
    door = admission(max_clients_per_address=1_000)
    open_places: dict[str, list[ExitStack]] = {"1": [], "2": [], "3": []}
    for host, comes in steps:
        if comes:
            stack = ExitStack()
            stack.enter_context(door.reserve(f"192.0.2.{host}", 0.0))
            open_places[host].append(stack)
        elif open_places[host]:
            open_places[host].pop().close()
        assert door.in_progress == sum(map(len, open_places.values()))
        assert door.counted_networks() == sum(map(bool, open_places.values()))
