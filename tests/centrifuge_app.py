"""An application for the tests of the Centrifuge SDKs: rooms that remember, and what a test asks of it.

`POST /do` with a JSON array does one thing on the server's side, and answers with JSON. `POST /token` with
claims, and for how many seconds it is good (`lives_s`), issues a JSON Web Token. `/page` is an empty page, for
tests in a browser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from hubbub import (
    Client,
    CommandError,
    Handshake,
    Hub,
    Identity,
    Position,
    Refused,
    RoomRules,
    TokenVerifier,
)
from hubbub.hub.client import session_of
from hubbub.hub.core import core_of
from issuing import SECRET, sign

RULES = [
    RoomRules("short:*", history=3, publish="members"),
    RoomRules("state:*", history=1, cache=True),
    RoomRules("doc:*", history=500, delta=True),
    RoomRules("here:*", presence=True, join_leave=True, leave_grace_s=0.05),
    RoomRules("team:*", history=50, publish="members", presence=True, join_leave=True),
    RoomRules("slow:*", history=500, slow_policy="drop_oldest"),
    RoomRules("chat:*", history=500, publish="members"),
]


def make_hub(verifier: TokenVerifier | None = None, **more: Any) -> Hub:
    """Return the hub, with `more` keywords.

    A token is a user's name, and what happens to it after a colon; or one that `["sign", claims]` has signed.
    With a `verifier` it is a JSON Web Token always.
    """
    hub = Hub(room_rules=RULES, origins="*", max_message_bytes=64 * 1024, **more)
    own = TokenVerifier(hmac_secret=SECRET)

    async def who(handshake: Handshake) -> Identity:
        if (handshake.token or "").count(".") == 2:
            return await own.authenticate(handshake)
        user, _, fate = (handshake.token or "").partition(":")
        if fate == "invalid":
            raise Refused(401, "unauthorized", "the token is not valid")
        if fate == "expired":
            raise Refused(401, "token_expired", "the token has expired")
        expires_at = time.time() + float(fate) if fate else None
        rooms = ("chat:own", "short:own") if user == "assigned" else ()
        return Identity(
            user=user or None, meta={"data": handshake.data}, expires_at=expires_at, rooms=rooms
        )

    @hub.authorize
    def may(client: Client, action: str, room: str) -> bool:
        return "secret" not in room

    @hub.on_connect
    async def begin(client: Client) -> None:
        if client.user == "server-side":
            await client.subscribe("chat:given")

    @hub.on("hello")
    def hello(client: Client, message: dict[str, Any]) -> None:
        client.send({"type": "welcome", "to": message["name"]})

    @hub.rpc("add")
    async def add(client: Client, data: list[int]) -> dict[str, int]:
        return {"sum": sum(data)}

    @hub.rpc("text")
    def say(client: Client, data: Any) -> str:
        return "42"

    @hub.rpc("fail")
    def fail(client: Client, data: Any) -> None:
        raise CommandError("450", "not today")

    if verifier is None:
        hub.authenticate(who)
        core_of(hub).access.verifier = own
    else:
        hub.verify_tokens(verifier)
    return hub


async def do(hub: Hub, request: list[Any]) -> Any:
    """Do one thing on the server's side."""
    match request:
        case ["publish", room, *texts]:
            for each in texts:
                receipt = await hub.publish(room, each)
            return receipt.position
        case ["cut"]:
            for client in list(hub):
                session_of(client).transport.abort()
        case ["cut", user]:
            for client in hub.clients_of(user):
                session_of(client).transport.abort()
        case ["miss", user, *publish]:
            await do(hub, ["cut", user])
            return await do(hub, ["publish", *publish])  # before the user can come back
        case ["exclude", user, room, text]:
            (client,) = hub.clients_of(user)
            await hub.publish(room, text, exclude=client)
        case ["cut and exclude", user, room, text]:
            (client,) = hub.clients_of(user)
            session_of(client).transport.abort()
            await hub.publish(room, text, exclude=client)  # as a handler does that still runs
        case ["close", user, code, reason]:
            for client in hub.clients_of(user):
                client.close(code, reason)
        case ["leave", user, room]:
            for client in hub.clients_of(user):
                client.leave(room)
        case ["gap", user, room]:
            for client in hub.clients_of(user):
                core_of(hub).gaps.tell(session_of(client), room)
        case ["expire", user, room]:
            for client in hub.clients_of(user):
                core_of(hub).subscriptions.end(session_of(client), room)
        case ["forget", user, room, *texts]:
            await do(hub, ["cut", user])
            await core_of(hub).recovery.remove(room)
            await do(hub, ["publish", room, *texts])
        case ["silence", user]:
            for client in hub.clients_of(user):
                core_of(hub).pings.remove(session_of(client))
        case ["send", user, data]:
            hub.to_user(user).send(data)
        case ["token", user, room, seconds]:
            exp = int(time.time()) + seconds
            return jwt.encode({"sub": user, "channel": room, "exp": exp}, SECRET, "HS256")
        case ["sign", claims]:
            return jwt.encode(claims, SECRET, "HS256")
        case ["meta", user]:
            return [client.meta.get("data") for client in hub.clients_of(user)]
        case _:
            raise AssertionError(request)
    return None


def make_app(hub: Hub, signed: Callable[[dict[str, Any]], str] = sign) -> Starlette:
    """Return the application: plain clients at /ws, SDKs at /connection/websocket. Its tokens are `signed`."""

    async def answer(request: Request) -> JSONResponse:
        done = await do(hub, await request.json())
        return JSONResponse(done.as_dict() if isinstance(done, Position) else done)

    async def issue(request: Request) -> JSONResponse:
        claims = await request.json()
        claims["exp"] = int(time.time()) + claims.pop("lives_s")
        return JSONResponse(signed(claims))

    async def show(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>page</title>")

    routes = [
        *hub.routes("/ws"),
        *hub.routes("/connection/websocket", dialect="centrifuge"),
        Route("/do", answer, methods=["POST"]),
        Route("/token", issue, methods=["POST"]),
        Route("/page", show),
    ]
    return Starlette(routes=routes, lifespan=hub.lifespan)
