"""Endpoint: what an authenticate handler may raise, and what fails before the first message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException, WebSocketException
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from asgi.handshakes import closed, refusal
from hubbub import (
    Client,
    CommandError,
    Disconnected,
    Handshake,
    Hub,
    Identity,
)
from hubbub.hub.core import core_of
from serving import Served, serve, until

pytestmark = pytest.mark.anyio


# Whatever fails between the handshake and the first message
class Unchecked(Identity):
    """An identity that says nothing about a wrong field when it is made."""

    def __post_init__(self) -> None: ...


def raise_it(error: BaseException) -> Callable[[Client], None]:
    def joined(client: Client) -> None:
        raise error

    return joined


class Giving(Mapping[str, Any]):
    """A mapping that fails when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise LookupError(key)

    def __iter__(self) -> Iterator[str]:
        raise LookupError("the session is gone")

    def __len__(self) -> int:
        return 1


def fail_in_tables(hub: Hub) -> None:
    def add(session: object) -> None:
        raise LookupError("no place in the tables")

    hub.every(1000)(lambda: None)
    core = core_of(hub)
    reset = core.reset

    def reset_and_break() -> None:
        reset()
        core.liveness.add = add  # type: ignore[method-assign]

    core.reset = reset_and_break  # type: ignore[method-assign]


def fail_at_connect(hub: Hub) -> None:
    hub.on_connect(raise_it(LookupError("no such room")))


FAILURES: dict[str, Callable[[Hub], object]] = {
    "a user that is no str": lambda hub: hub.authenticate(lambda _: Unchecked(user=42)),  # type: ignore[arg-type]
    "a time that is no number": lambda hub: hub.authenticate(
        lambda _: Unchecked(expires_at=Giving())  # type: ignore[arg-type]
    ),
    "meta that cannot be read": lambda hub: hub.authenticate(lambda _: Identity(meta=Giving())),
    "the tables": fail_in_tables,
    "a connect handler": fail_at_connect,
}


async def end_of_joining(server: Served) -> int:
    """Join and be sent away; return the close code, or the status of the refusal."""
    try:
        async with server.connect() as socket:
            end = await closed(socket)
    except InvalidStatus as refused:
        return refused.response.status_code
    return 0 if end.rcvd is None else end.rcvd.code


@pytest.mark.parametrize("name", FAILURES)
async def test_fault_07_what_fails_before_a_client_is_connected_closes_it_and_frees_its_place(
    native: bool, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(max_clients=1, max_clients_per_address=1)
    FAILURES[name](hub)
    async with serve(hub, native=native) as server:
        for _ in range(20):
            assert await end_of_joining(server) == (
                500 if name == "a time that is no number" else 1011
            )
            await until(lambda: len(hub) == 0 and not core_of(hub).registry.transports)
        stats = hub.stats()
        refused: int = stats["refused"].get("internal_error", 0)
        assert stats["handler_errors"] + refused == 20
        assert (stats["register"], hub.rooms, len(core_of(hub).admission._networks)) == (0, {}, 0)
        assert core_of(hub).liveness._wheel._where == {}
        assert server.server is not None
        assert not server.server.server_state.tasks
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert 0 < len(lines) < 10
    assert {line.name for line in lines} == {"hubbub"}
    assert all(line.exc_info for line in lines)


@pytest.mark.parametrize("identity", [42, {"user": "ann"}, True, b"ann"])
async def test_fault_07_attach_says_at_once_what_is_no_identity(
    native: bool, identity: Any
) -> None:
    hub = Hub()
    heard: list[str] = []

    async def own(websocket: WebSocket) -> None:
        try:
            await hub.attach(websocket, identity=identity)
        except TypeError as error:
            heard.append(str(error))
            await websocket.close()

    app = Starlette(routes=[WebSocketRoute("/ws", own)], lifespan=hub.lifespan)
    async with serve(app, native=native) as server:
        with pytest.raises(InvalidStatus, match="403"):
            await server.connect()
    assert f"not {type(identity).__name__}" in heard[0]
    assert hub.stats()["register"] == 0


# What an authenticate handler may raise

RAISED: list[tuple[Exception, int, dict[str, Any]]] = [
    (WebSocketException(1008), 403, {"error": "Forbidden", "code": "forbidden"}),
    (WebSocketException(1008, "not you"), 403, {"error": "not you", "code": "forbidden"}),
    (WebSocketException(1013, "full"), 503, {"error": "full", "code": "unavailable"}),
    (HTTPException(403), 403, {"error": "Forbidden", "code": "forbidden"}),
    (HTTPException(401, "log in"), 401, {"error": "log in", "code": "unauthorized"}),
    (Disconnected(4404, "no room"), 404, {"error": "no room", "code": "not_found"}),
    (CommandError("banned", "Not you"), 403, {"error": "Not you", "code": "banned"}),
]


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async def"])
async def test_fault_19_what_frameworks_raise_is_the_documented_refusal(
    native: bool, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    def who(handshake: Handshake) -> None:
        raise RAISED[int(handshake.query["case"])][0]

    async def who_later(handshake: Handshake) -> None:
        await asyncio.sleep(0)
        who(handshake)

    hub.authenticate(who_later if is_async else who)
    async with serve(hub, native=native) as server:
        for case, (error, status, body) in enumerate(RAISED):
            answer = await refusal(server, f"/ws?case={case}")
            assert (answer.status, answer.body) == (status, body), error
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_fault_19_what_cannot_be_answered_is_a_500_with_one_line_in_the_log(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [
        HTTPException(403, headers={"X-Line": "a\r\nb: c"}),
        HTTPException(204),
        WebSocketException(999),
        TimeoutError("the database"),
        StopIteration(),
    ]
    hub = Hub()

    @hub.authenticate
    async def who(handshake: Handshake) -> None:
        raise errors[int(handshake.query["case"])]

    async with serve(hub, native=native) as server:
        for case in range(len(errors)):
            with pytest.raises(InvalidStatus, match="500"):
                await server.connect(f"/ws?case={case}")
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(lines) == len(errors)
    assert {line.getMessage() for line in lines} == {"the authenticate handler failed"}
    assert hub.stats()["refused"] == {"internal_error": len(errors)}
