"""Admission: places, ids, and the end of both."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import Client, Handshake, Hub, Identity, Refused, Settings
from hubbub.admission import RETRY_AFTER_S, Admission
from hubbub.testing import connect

pytestmark = pytest.mark.anyio


def wishing(client_id: str) -> Handshake:
    return Handshake("/", {}, query_string=f"id={client_id}")


def admission(**settings: Any) -> Admission:
    book: dict[str, Client] = {}
    return Admission(Settings(**settings), book)


def test_places_are_counted_and_those_held_are_taken() -> None:
    door = admission(max_clients=1)
    door.check_capacity()
    door.hold("first")
    for attempt in (door.check_capacity, lambda: door.hold("second")):
        with pytest.raises(Refused) as caught:
            attempt()
        assert (caught.value.status, caught.value.code) == (503, "too_many_clients")
        assert caught.value.headers == {"Retry-After": str(RETRY_AFTER_S)}
    door.release("first")
    door.release("first")
    door.hold("second")


def test_nobody_is_taken_once_it_is_closed() -> None:
    door = admission()
    door.is_closed = True
    with pytest.raises(Refused) as caught:
        door.check_capacity()
    assert (caught.value.status, caught.value.code) == (503, "shutting_down")


def test_ids_are_generated_unless_wishing_is_allowed() -> None:
    door = admission()
    ids = {door.choose_id(wishing("mine"), Identity()) for _ in range(100)}
    assert len(ids) == 100
    assert "mine" not in ids
    assert admission(client_id_from_query=True).choose_id(wishing("mine"), Identity()) == "mine"


def test_an_id_that_is_held_is_nobody_elses() -> None:
    door = admission(client_id_from_query=True)
    door.hold("mine")
    with pytest.raises(Refused) as caught:
        door.choose_id(wishing("mine"), Identity(user="ann"))
    assert (caught.value.status, caught.value.code) == (409, "id_in_use")
    door.release("mine")
    assert door.choose_id(wishing("mine"), Identity(user="ann")) == "mine"


FULL = f"too_many_from_address, 503, {RETRY_AFTER_S}"


def refusal_of(door: Admission, address: str | None) -> str | None:
    try:
        door.check_address(address)
    except Refused as refusal:
        return f"{refusal.code}, {refusal.status}, {refusal.headers['Retry-After']}"
    return None


def test_handshakes_in_progress_count_for_their_address() -> None:
    door = admission(max_clients_per_address=2)
    with door.handshake("192.0.2.1"):
        assert refusal_of(door, "192.0.2.1") is None
        with door.handshake("::ffff:192.0.2.1"):
            assert door.in_progress == 2
            assert refusal_of(door, "192.0.2.1") == FULL
            assert refusal_of(door, "192.0.2.2") is None
            assert refusal_of(door, None) is None
    assert refusal_of(door, "192.0.2.1") is None
    assert door.in_progress == 0


def test_who_has_no_known_address_is_not_limited() -> None:
    door = admission(max_clients_per_address=1)
    for address in (None, "", "a unix socket"):
        with door.handshake(address), door.handshake(address):
            assert refusal_of(door, address) is None


def test_without_a_limit_no_address_is_counted() -> None:
    door = admission()
    with door.handshake("192.0.2.1"):
        assert len(door._addresses) == 0
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
        door.check_visitor("192.0.2.1", lag_s)
        return
    with pytest.raises(Refused, match="503 overloaded") as caught:
        door.check_visitor("192.0.2.1", lag_s)
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
        peer.transport.cut()
    assert hub.admission._addresses.count("2001:db8::/64") == 0
    await hub.stop()
    assert len(hub.admission._addresses) == len(hub.admission._address_of) == 0


def test_a_handshake_of_a_loop_that_is_gone_takes_nothing_from_the_next() -> None:
    door = admission(max_clients_per_address=1)
    old = door.handshake("192.0.2.1")
    old.__enter__()
    door.forget()
    with door.handshake("192.0.2.1"):
        old.__exit__(None, None, None)
        assert refusal_of(door, "192.0.2.1") == FULL


async def test_an_id_may_be_taken_over_by_its_own_user_only() -> None:
    hub = Hub(client_id_from_query=True)
    await hub.start()
    connect(hub, user="ann", client_id="hers")
    connect(hub, client_id="anonymous")
    assert hub.admission.choose_id(wishing("hers"), Identity(user="ann")) == "hers"
    for taken, user in (("hers", "bob"), ("hers", None), ("anonymous", None)):
        with pytest.raises(Refused, match="409"):
            hub.admission.choose_id(wishing(taken), Identity(user=user))
    await hub.stop()
