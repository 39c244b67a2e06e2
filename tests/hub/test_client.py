"""Client: what an application sees of a connection."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from hubbub import Client, Close, CommandError, Hub
from hubbub.testing import FakeClock, advance_time, connect, set_clock, settle

pytestmark = pytest.mark.anyio


async def started(**settings: Any) -> Hub:
    hub = Hub(**settings)
    await hub.start()
    return hub


async def test_what_a_client_knows_of_itself() -> None:
    hub = await started()
    ann = connect(hub, user="ann", client_id="tab-1", meta={"role": "admin"}).client
    bob = connect(hub).client
    assert (ann.id, ann.user, ann.address) == ("tab-1", "ann", "127.0.0.1")
    assert ann.meta == {"role": "admin"}
    assert ann.connected_at == pytest.approx(bob.connected_at, abs=5)
    assert repr(ann) == "<Client tab-1 user='ann'>"
    assert repr(bob) == f"<Client {bob.id}>"
    assert bob.user is None
    bob.meta["seen"] = 1
    assert bob.meta == {"seen": 1}
    assert ann.is_connected
    await hub.stop()
    assert not ann.is_connected


async def test_a_client_may_be_refreshed_or_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub, clock, now = Hub(), FakeClock(), time.time()
    set_clock(hub, clock)
    await hub.start()
    peers = {name: connect(hub, client_id=name, expires_at=now + 100) for name in ("a", "b", "c")}
    forever = connect(hub)
    advance_time(hub, 90)
    assert len(hub) == 4
    peers["b"].client.refresh(time.time() + 100)
    peers["c"].client.refresh(None)
    advance_time(hub, 15)
    assert peers["a"].closed == Close(3005, "token expired", by_server=True)
    assert "client a has a token that expired; closed" in caplog.text
    advance_time(hub, 80)
    assert peers["b"].closed is None
    advance_time(hub, 20)
    assert peers["b"].closed is not None
    for peer in (forever, peers["c"]):
        assert peer.closed is None
        assert peer.received == []
    assert hub.stats()["expired"] == 2
    peers["a"].client.refresh(None)  # gone already: no error, and nothing comes back
    peers["c"].client.refresh(time.time() - 1)
    advance_time(hub, 2)
    assert peers["c"].closed is not None
    with pytest.raises(ValueError, match="expires_at=nan"):
        forever.client.refresh(float("nan"))
    await hub.stop()


async def test_a_client_may_be_asked_for_a_new_token_first() -> None:
    hub, clock = Hub(on_expiry="ask"), FakeClock()
    set_clock(hub, clock)

    @hub.on("token")
    def refresh(client: Client, message: dict[str, Any]) -> None:
        client.refresh(time.time() + message["seconds"])

    await hub.start()
    good, bad = [connect(hub, expires_at=time.time() + 100) for _ in range(2)]
    advance_time(hub, 65)
    await settle(hub)
    assert good.received == []
    advance_time(hub, 10)
    await settle(hub)
    (question,) = good.json()
    assert question == {"type": "refresh", "expires_in_s": pytest.approx(29, abs=2)}
    good.send({"type": "token", "seconds": 3600})
    advance_time(hub, 30)
    assert good.closed is None
    assert bad.closed is not None
    assert bad.closed.code == 3005
    await settle(hub)
    assert len(good.received) == len(bad.received) == 1
    await hub.stop()


async def test_each_client_has_a_meta_of_its_own() -> None:
    hub = await started()
    shared = {"n": 1}
    first, second = connect(hub, meta=shared).client, connect(hub, meta=shared).client
    first.meta["n"] = 2
    assert second.meta == {"n": 1}
    assert shared == {"n": 1}
    await hub.stop()


async def test_rooms_are_those_of_the_application() -> None:
    hub = await started()
    client = connect(hub, user="ann").client
    assert client.rooms == frozenset()
    client.join("red")
    client.join("red")
    client.join("blue")
    client.leave("blue")
    client.leave("blue")
    assert client.rooms == {"red"}
    for name in ("", "@ann"):
        with pytest.raises(CommandError):
            client.join(name)
        with pytest.raises(CommandError):
            client.leave(name)
    hub.disconnect(client)
    assert client.rooms == {"red"}, "after its end, where it was last"
    client.join("green")
    client.leave("red")
    assert client.rooms == {"red"}
    assert hub.rooms == {}
    await hub.stop()


async def test_send_says_whether_the_client_is_there() -> None:
    hub = await started()
    peer = connect(hub)
    assert peer.client.send("hi")
    assert peer.client.send(b"\x00")
    assert peer.client.send({"n": 1})
    await settle(hub)
    assert peer.received == ["hi", b"\x00", '{"n":1}']
    peer.close()
    assert peer.client.send("too late") is False
    assert hub.stats()["sends_to_gone"] == 1
    await hub.stop()


async def test_what_was_sent_before_a_close_goes_first() -> None:
    hub = await started()
    peer = connect(hub)
    peer.client.send("before the close")
    peer.client.close(4001, "é" * 100)
    peer.client.close(4002)
    assert peer.received == ["before the close"]
    assert peer.closed == Close(4001, "é" * 61, by_server=True)
    for code in (1005, 1006, 1015, 999, 5000, 0):
        with pytest.raises(ValueError, match=r"section 7\.4"):
            peer.client.close(code)
    await hub.stop()


async def test_renew_is_refresh_now_and_still_works_with_a_warning() -> None:
    hub = Hub()
    set_clock(hub, FakeClock())
    await hub.start()
    peer = connect(hub, expires_at=time.time() + 10)
    with pytest.warns(DeprecationWarning, match=r"client\.refresh") as said:
        peer.client.renew(None)  # type: ignore[attr-defined]
    assert said[0].filename == __file__
    advance_time(hub, 20)
    assert peer.closed is None
    assert "renew" not in dir(peer.client)
    with pytest.raises(AttributeError, match="'Client' object has no attribute 'renewal'"):
        peer.client.renewal  # type: ignore[attr-defined]  # noqa: B018
    await hub.stop()


PUBLIC = {
    *("id", "user", "address", "connected_at", "dropped", "meta", "rooms", "is_connected"),
    *("send", "join", "subscribe", "leave", "refresh", "close"),
}


def test_a_client_shows_applications_what_they_need_and_nothing_else() -> None:
    assert {name for name in dir(Client) if not name.startswith("_")} == PUBLIC
