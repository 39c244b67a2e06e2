"""PyPI `cent`, the client of Centrifugo's server API, unmodified: every method that it has, sync and async,
over a real server."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import cent
import pytest
from centrifuge import Client as SdkClient  # type: ignore[import-untyped]
from centrifuge import ClientEventHandler
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import ClientConnection

from asgi.handshakes import closed
from calling import KEY
from centrifuge_app import make_app, make_hub
from hubbub import ApiKey, Hub
from hubbub.asgi.api_methods import METHODS
from serving import Served, serve, take, until

pytestmark = pytest.mark.anyio

CRON_KEY = "another-key-0123456789"
Call = Callable[[str, Any], Awaitable[Any]]


class Venue(NamedTuple):
    """A served hub, and a client of its API: `call("publish", request)`."""

    hub: Hub
    served: Served
    call: Call
    client: Callable[[str], Any]

    async def join(self, user: str, *rooms: str) -> ClientConnection:
        """Connect a plain client that is in rooms."""
        before = len(self.hub)
        socket = await self.served.connect(f"/ws?token={user}")
        await until(lambda: len(self.hub) > before)
        for room in rooms:
            self.hub.clients_of(user)[-1].join(room)
        return socket


@pytest.fixture(params=["sync", "async"])
async def venue(request: pytest.FixtureRequest) -> AsyncIterator[Venue]:
    hub = make_hub()
    app = make_app(hub)
    assert isinstance(app, Starlette)
    keys: list[str | ApiKey] = [KEY, ApiKey(CRON_KEY, methods=["publish"], rooms=["chat:*"])]
    app.router.routes.insert(0, Mount("/api", hub.api("/api", keys=keys)))
    async with serve(app) as served:
        url = served.http("/api")
        if request.param == "sync":
            sync_client = cent.Client(url, KEY)

            async def call(method: str, request: Any) -> Any:
                return await asyncio.to_thread(getattr(sync_client, method), request)

            yield Venue(hub, served, call, lambda key: cent.Client(url, key))
            sync_client.close()
        else:
            async_client = cent.AsyncClient(url, KEY)

            async def call_async(method: str, request: Any) -> Any:
                return await getattr(async_client, method)(request)

            yield Venue(hub, served, call_async, lambda key: cent.Client(url, key))
            await async_client.close()


async def end_of(socket: ClientConnection) -> tuple[int, str]:
    """Wait for the end of a connection; return the code and the reason."""
    end = (await closed(socket)).rcvd
    assert end is not None
    return end.code, end.reason


async def test_publish(venue: Venue) -> None:
    ann = await venue.join("ann", "chat:1")
    request = cent.PublishRequest(
        channel="chat:1", data={"text": "hello"}, skip_history=False, idempotency_key="k"
    )
    first, second = [await venue.call("publish", request) for _ in range(2)]
    assert (first.offset, first.epoch) == (second.offset, second.epoch)
    assert first.offset == 1
    binary = cent.PublishRequest(channel="plain", data=None, b64data="AAE=")
    assert (await venue.call("publish", binary)).offset == 0
    assert await take(ann, 1) == ['{"text": "hello"}']
    await ann.close()


async def test_broadcast(venue: Venue) -> None:
    ann = await venue.join("ann", "chat:1", "chat:2")
    request = cent.BroadcastRequest(channels=["chat:1", "@bad", "chat:2"], data={"n": 1})
    first, second, third = (await venue.call("broadcast", request)).responses
    assert (first.result.offset, third.result.offset) == (1, 1)
    assert (second.error.code, second.result) == (107, None)
    assert len(await take(ann, 2)) == 2
    await ann.close()


async def test_subscribe_and_unsubscribe(venue: Venue) -> None:
    ann = await venue.join("ann")
    position = await venue.hub.publish("chat:1", "missed")
    assert position.position is not None
    await venue.hub.publish("chat:1", "seen")
    since = cent.StreamPosition(offset=1, epoch=position.position.epoch)
    request = cent.SubscribeRequest(
        user="ann",
        channel="chat:1",
        client=venue.hub.clients_of("ann")[0].id,
        data={"why": "invited"},
        recover_since=since,
    )
    assert await venue.call("subscribe", request) == cent.SubscribeResult()
    assert await take(ann, 1) == ["seen"]
    assert venue.hub.clients_of("ann")[0].rooms == {"chat:1"}
    unsubscribe = cent.UnsubscribeRequest(user="ann", channel="chat:1")
    assert await venue.call("unsubscribe", unsubscribe) == cent.UnsubscribeResult()
    assert venue.hub.clients_of("ann")[0].rooms == set()
    nobody = cent.SubscribeRequest(user="nobody", channel="chat:1", session="s")
    assert await venue.call("subscribe", nobody) == cent.SubscribeResult()
    await ann.close()


async def test_presence_and_presence_stats(venue: Venue) -> None:
    ann, bob = await venue.join("ann", "here:1"), await venue.join("bob", "here:1")
    found = (await venue.call("presence", cent.PresenceRequest(channel="here:1"))).presence
    assert {info.user for info in found.values()} == {"ann", "bob"}
    assert {info.client for info in found.values()} == set(found)
    stats = await venue.call("presence_stats", cent.PresenceStatsRequest(channel="here:1"))
    assert (stats.num_clients, stats.num_users) == (2, 2)
    for socket in (ann, bob):
        await socket.close()


async def test_history_and_history_remove(venue: Venue) -> None:
    for n in range(5):
        await venue.hub.publish("chat:1", {"n": n})
    everything = cent.HistoryRequest(channel="chat:1", limit=-1, reverse=True)
    found = await venue.call("history", everything)
    assert [each.data["n"] for each in found.publications] == [4, 3, 2, 1, 0]
    since = cent.StreamPosition(offset=3, epoch=found.epoch)
    later = cent.HistoryRequest(channel="chat:1", limit=1, since=since)
    assert [each.offset for each in (await venue.call("history", later)).publications] == [4]
    position = await venue.call("history", cent.HistoryRequest(channel="chat:1"))
    assert (position.publications, position.offset) == ([], 5)
    await venue.call("history_remove", cent.HistoryRemoveRequest(channel="chat:1"))
    assert (await venue.call("history", everything)).publications == []
    with pytest.raises(cent.CentApiResponseError) as caught:
        await venue.call("history", later)
    assert caught.value.code == 112


async def test_channels_and_info(venue: Venue) -> None:
    ann = await venue.join("ann", "chat:1", "here:1")
    found = (await venue.call("channels", cent.ChannelsRequest(pattern="chat:*"))).channels
    assert {name: info.num_clients for name, info in found.items()} == {"chat:1": 1}
    [node] = (await venue.call("info", cent.InfoRequest())).nodes
    assert (node.num_clients, node.num_users, node.num_channels, node.num_subs) == (1, 1, 2, 2)
    assert node.uid
    await ann.close()


async def test_disconnect(venue: Venue) -> None:
    ann, other = await venue.join("ann"), await venue.join("ann")
    spared = venue.hub.clients_of("ann")[0].id
    request = cent.DisconnectRequest(
        user="ann",
        whitelist=[spared],
        disconnect=cent.Disconnect(code=4100, reason="moved"),
    )
    assert await venue.call("disconnect", request) == cent.DisconnectResult()
    assert await end_of(other) == (4100, "moved")
    await venue.call("disconnect", cent.DisconnectRequest(user="ann"))
    assert await end_of(ann) == (3503, "force disconnect")


async def test_refresh(venue: Venue) -> None:
    ann = await venue.join("ann")
    later = cent.RefreshRequest(user="ann", expire_at=int(time.time()) + 600)
    assert await venue.call("refresh", later) == cent.RefreshResult()
    await venue.call("refresh", cent.RefreshRequest(user="ann", expired=True))
    assert (await end_of(ann))[0] == 3005


@pytest.mark.parametrize("parallel", [True, False])
async def test_batch(venue: Venue, parallel: bool) -> None:
    requests = [
        cent.PublishRequest(channel="chat:1", data={"n": 1}),
        cent.PublishRequest(channel="chat:2", data={"n": 2}),
        cent.BroadcastRequest(channels=["chat:3", "chat:4"], data={"n": 3}),
        cent.PresenceRequest(channel="here:1"),
        cent.InfoRequest(),
    ]
    batch = cent.BatchRequest(requests=requests, parallel=parallel)
    one, two, three, four, five = (await venue.call("batch", batch)).replies
    assert (one.offset, two.offset) == (1, 1)
    assert [each.result.offset for each in three.responses] == [1, 1]
    assert four.presence == {}
    assert len(five.nodes) == 1


async def test_what_the_hub_cannot_do_is_an_error_of_the_client(venue: Venue) -> None:
    tagged = cent.PublishRequest(channel="chat:1", data=1, tags={"a": "b"})
    with pytest.raises(cent.CentApiResponseError, match="not available: tags") as caught:
        await venue.call("publish", tagged)
    assert caught.value.code == 108


async def test_a_wrong_key_and_one_that_may_not_are_told_so(venue: Venue) -> None:
    request = cent.PublishRequest(channel="chat:1", data=1)
    wrong = venue.client("wrong")
    with pytest.raises(cent.CentUnauthorizedError):
        await asyncio.to_thread(wrong.publish, request)
    cron = venue.client(CRON_KEY)
    assert (await asyncio.to_thread(cron.publish, request)).offset == 1
    refused: list[tuple[Any, Any]] = [
        (cron.publish, cent.PublishRequest(channel="state:1", data=1)),
        (cron.info, cent.InfoRequest()),
    ]
    for method, refused_request in refused:
        with pytest.raises(cent.CentApiResponseError, match="permission denied") as caught:
            await asyncio.to_thread(method, refused_request)
        assert caught.value.code == 103
    for client in (wrong, cron):
        client.close()


async def test_every_other_method_of_the_client_is_one_that_centrifugo_sells(
    venue: Venue,
) -> None:
    """They are not there, and the client is told so; the others are all in the tests above."""
    names = {name for name, _ in inspect.getmembers(cent.Client, inspect.isfunction)}
    others = sorted(name for name in names - set(METHODS) if name[0] != "_" and name != "close")
    assert set(METHODS) <= names
    assert len(others) > 10
    source = inspect.getsource(inspect.getmodule(test_batch))  # type: ignore[arg-type]
    assert all(f'"{name}"' in source for name in METHODS)
    for name in others:
        kind = inspect.signature(getattr(cent.Client, name)).parameters["request"].annotation
        with pytest.raises(cent.CentTransportError) as caught:
            await venue.call(name, kind.model_construct())
        assert caught.value.status_code == 404


class Heard(ClientEventHandler):  # type: ignore[misc]
    """What an SDK's client is told of rooms that the server puts it into."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    async def on_subscribed(self, ctx: Any) -> None:
        self.events.append(("subscribed", ctx.channel, ctx.data))

    async def on_publication(self, ctx: Any) -> None:
        self.events.append(("publication", ctx.channel, ctx.pub.data))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.events.append(("unsubscribed", ctx.channel))

    async def on_disconnected(self, ctx: Any) -> None:
        self.events.append(("disconnected", ctx.code, ctx.reason))


async def test_an_sdk_is_told_what_is_done_to_it(venue: Venue) -> None:
    heard = Heard()
    client = SdkClient(venue.served.ws("/connection/websocket"), token="ann", events=heard)
    await client.connect()
    await client.ready()
    steps = [
        ("subscribe", cent.SubscribeRequest(user="ann", channel="chat:1", data={"why": "invited"})),
        ("publish", cent.PublishRequest(channel="chat:1", data={"n": 1})),
        ("unsubscribe", cent.UnsubscribeRequest(user="ann", channel="chat:1")),
        ("disconnect", cent.DisconnectRequest(user="ann")),
    ]
    for number, (method, each) in enumerate(steps, 1):
        await venue.call(method, each)
        await until(lambda number=number: len(heard.events) == number)  # type: ignore[misc]
    assert heard.events == [
        ("subscribed", "chat:1", {"why": "invited"}),
        ("publication", "chat:1", {"n": 1}),
        ("unsubscribed", "chat:1"),
        ("disconnected", 3503, "force disconnect"),
    ]
    await client.disconnect()
