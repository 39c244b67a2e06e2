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
