"""PyPI `centrifuge-python`: a client, and what it writes down of what happens to it.

What must not live here: what should happen (the tests), the npm SDK (`playing`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from centrifuge import (  # type: ignore[import-untyped]
    Client,
    ClientEventHandler,
    ConnectingContext,
    DisconnectedContext,
    JoinContext,
    LeaveContext,
    PublicationContext,
    ServerPublicationContext,
    ServerSubscribedContext,
    ServerUnsubscribedContext,
    SubscribedContext,
    SubscribingContext,
    Subscription,
    SubscriptionErrorContext,
    SubscriptionEventHandler,
    UnsubscribedContext,
)

from serving import Served


class Noting(SubscriptionEventHandler):  # type: ignore[misc]
    """Writes down what comes of a room."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, int]] = []
        self.publishers: list[Any] = []
        self.told: list[Any] = []
        """What came with each subscription."""
        self.recovered: list[tuple[bool, bool]] = []
        self.codes: list[tuple[str, int]] = []
        """Of each subscribing and each end, and the errors."""
        self.people: list[tuple[str, str]] = []
        """Who has joined and left."""

    async def on_publication(self, ctx: PublicationContext) -> None:
        self.got.append((ctx.pub.data, ctx.pub.offset))
        self.publishers.append(ctx.pub.info)

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        self.recovered.append((ctx.was_recovering, ctx.recovered))
        self.told.append(ctx.data)

    async def on_subscribing(self, ctx: SubscribingContext) -> None:
        self.codes.append(("subscribing", ctx.code))

    async def on_unsubscribed(self, ctx: UnsubscribedContext) -> None:
        self.codes.append(("unsubscribed", ctx.code))

    async def on_error(self, ctx: SubscriptionErrorContext) -> None:
        self.codes.append(("error", ctx.error.code))

    async def on_join(self, ctx: JoinContext) -> None:
        self.people.append(("join", ctx.info.user))

    async def on_leave(self, ctx: LeaveContext) -> None:
        self.people.append(("leave", ctx.info.user))


class NotingClient(ClientEventHandler):  # type: ignore[misc]
    """Writes down what becomes of a connection, and of the rooms that the server gives it."""

    def __init__(self) -> None:
        self.codes: list[tuple[str, int]] = []
        self.had: list[tuple[str, bool, bool]] = []
        """Of each room that is given: whether it was recovering, and has."""
        self.got: list[tuple[str, Any, int]] = []
        self.taken: list[str] = []

    async def on_connecting(self, ctx: ConnectingContext) -> None:
        self.codes.append(("connecting", ctx.code))

    async def on_disconnected(self, ctx: DisconnectedContext) -> None:
        self.codes.append(("disconnected", ctx.code))

    async def on_subscribed(self, ctx: ServerSubscribedContext) -> None:
        self.had.append((ctx.channel, ctx.was_recovering, ctx.recovered))

    async def on_unsubscribed(self, ctx: ServerUnsubscribedContext) -> None:
        self.taken.append(ctx.channel)

    async def on_publication(self, ctx: ServerPublicationContext) -> None:
        self.got.append((ctx.channel, ctx.pub.data, ctx.pub.offset))


@asynccontextmanager
async def sdk(
    server: Served, token: str, **options: Any
) -> AsyncIterator[tuple[Client, NotingClient]]:
    """Give a client that has begun to connect, and what it writes down."""
    noting = NotingClient()
    url = server.ws("/connection/websocket")
    client = Client(url, noting, token, min_reconnect_delay=0.02, proxy=None, **options)
    await client.connect()
    try:
        yield client, noting
    finally:
        await client.disconnect()


async def enter(client: Client, room: str, **options: Any) -> tuple[Subscription, Noting]:
    """Subscribe to a room, and wait until that is done."""
    noting = Noting()
    subscription = client.new_subscription(room, noting, min_resubscribe_delay=0.02, **options)
    await subscription.subscribe()
    await subscription.ready(timeout=10)
    return subscription, noting
