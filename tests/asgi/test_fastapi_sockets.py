"""FastAPI: routes of one's own, sockets that no hub takes, and those that one has taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from starlette.responses import Response as PlainResponse
from starlette.websockets import WebSocketDisconnect

from asgi.fastapi_apps import check_token, denial, end_of, listen_to_uvicorn
from hubbub import (
    Handshake,
    HttpProtocol,
    Hub,
    Identity,
    SocketTaken,
)
from serving import Served, serve, take, until

pytestmark = pytest.mark.anyio

# A route of one's own


async def test_s07_attach_in_a_fastapi_route(native: bool) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/projects/{project}/ws")
    async def project_socket(websocket: WebSocket, project: int) -> None:
        await hub.attach(websocket, identity=Identity(user="ann", meta={"project": project}))

    async with serve(app, native=native) as server:
        async with server.connect("/projects/7/ws") as socket:
            await until(lambda: len(hub) == 1)
            assert [client.meta for client in hub.clients_of("ann")] == [{"project": 7}]
            hub.to_user("ann").send("welcome")
            assert await take(socket, 1) == ["welcome"]
        assert (await denial(server, "/projects/x/ws")).status_code == 403


async def test_a_client_that_goes_during_its_handshake_is_no_error(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen_to_uvicorn(caplog)
    hub = Hub()
    answer = asyncio.Event()

    @hub.authenticate
    async def who(handshake: Handshake) -> str | None:
        await answer.wait()
        return handshake.query.get("user")

    app = FastAPI()
    app.include_router(hub.router("/ws"))
    async with serve(app, native=native, log_config=None, log_level="info") as server:
        for path in ("/ws?user=ann", "/ws"):
            await leave_early(server, path)
        await until(lambda: hub.stats()["register"] == 2)
        assert server.server is not None
        state = server.server.server_state
        await until(lambda: not state.connections)
        answer.set()
        await until(lambda: hub.stats()["register"] == 0 and not state.tasks)
    assert hub.stats()["total_clients"] == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def leave_early(server: Served, path: str) -> None:
    """Ask for a socket and go before the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()


# Sockets that no hub takes, under the native class


def application_with_own_sockets(gone: list[int]) -> FastAPI:
    app = FastAPI()
    app.include_router(Hub().router("/ws"))

    @app.websocket("/echo")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as end:
            gone.append(end.code)

    @app.websocket("/close")
    async def close(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(4123, "as agreed")

    @app.websocket("/guarded")
    async def needs_token(
        websocket: WebSocket, token: Annotated[str, Depends(check_token)]
    ) -> None:
        await websocket.accept()
        await websocket.send_json({"token": token})
        await websocket.close()

    return app


async def test_fastapis_own_sockets_work_under_the_native_class() -> None:
    gone: list[int] = []
    async with serve(application_with_own_sockets(gone)) as server:
        async with server.connect("/echo", compression="deflate") as socket:
            for text in ("", "hello", "ü" * 100_000):
                await socket.send(text)
                assert await take(socket, 1) == [text]
            await socket.close(4001)
        await until(lambda: gone == [4001])
        async with server.connect("/close") as socket:
            assert await end_of(socket) == 4123
        response = await denial(server, "/guarded")
        assert response.status_code == 401
        assert response.headers["X-Why"] == "token"
        async with server.connect("/guarded?token=good") as socket:
            assert await take(socket, 1) == ['{"token":"good"}']
        last = await server.connect("/echo")
        await last.send("hello")
        await take(last, 1)
    assert await end_of(last) == 1012
    assert gone == [4001, 1012]


# What the framework does to a socket that it no longer owns
HTTP_CLASSES = {"h11": "h11", "httptools": "httptools", "hubbub": HttpProtocol}


async def close_it(websocket: WebSocket) -> None:
    await websocket.close()


async def send_text(websocket: WebSocket) -> None:
    await websocket.send_text("from the route")


async def send_json(websocket: WebSocket) -> None:
    await websocket.send_json({"from": "the route"})


async def receive_text(websocket: WebSocket) -> None:
    await websocket.receive_text()


async def accept_again(websocket: WebSocket) -> None:
    await websocket.accept()


async def deny(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainResponse("no", 403))


async def send_raw(websocket: WebSocket) -> None:
    await websocket.send({"type": "websocket.http.response.start", "status": 403, "headers": []})


USES = [close_it, send_text, send_json, receive_text, accept_again, deny, send_raw]


def using_app(hub: Hub, heard: list[BaseException]) -> FastAPI:
    """Return an application whose route hands its socket over and then uses it nevertheless."""
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/{number}/ws")
    async def use(websocket: WebSocket, number: int) -> None:
        await hub.attach(websocket)
        try:
            await USES[number](websocket)
        except RuntimeError as error:
            heard.append(error)
            raise

    return app


@pytest.mark.parametrize("http", HTTP_CLASSES)
@pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": use_uvloop}) for use_uvloop in (False, True)],
    ids=["asyncio", "uvloop"],
)
async def test_fault_04_using_a_socket_that_the_hub_has_taken_is_an_error_for_the_user_alone(
    http: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))
    heard: list[BaseException] = []
    app = using_app(hub, heard)
    async with AsyncExitStack() as stack:
        async with serve(app, http=HTTP_CLASSES[http], log_config=None) as server:
            sockets = [
                await stack.enter_async_context(server.connect(f"/{number}/ws"))
                for number in range(len(USES))
            ]
            await until(lambda: len(heard) == len(USES))
            assert {type(error) for error in heard} == {SocketTaken}
            assert all("use the client" in str(error) for error in heard)
            for socket in sockets:
                await socket.send("still here")
                assert await take(socket, 1) == ["still here"]
            assert len(hub) == len(USES)
            assert server.server is not None
            state = server.server.server_state
            await until(lambda: len(state.connections) == len(USES) and not state.tasks)
        for socket in sockets:
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1012, "service restart")
    assert not hub.is_running, "the lifespan was completed"
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.name for record in failures} == {"hubbub"}
    assert all("the client stays" in record.getMessage() for record in failures)


RAISED = {
    "http": HTTPException(403, "after the takeover"),
    "websocket": WebSocketException(1008, "after the takeover"),
    "other": LookupError("after the takeover"),
}


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_fault_04_what_a_route_or_its_dependency_raises_after_the_takeover_hurts_no_client(
    http: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))

    async def raising() -> AsyncIterator[None]:
        yield
        raise RAISED[kind]

    app = FastAPI()
    app.include_router(hub.router("/ws", dependencies=[Depends(raising)]))

    @app.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        await hub.attach(websocket)
        raise RAISED[kind]

    async with AsyncExitStack() as stack:
        async with serve(app, http=HTTP_CLASSES[http], log_config=None) as server:
            sockets = [
                await stack.enter_async_context(server.connect(path)) for path in ("/ws", "/own")
            ]
            assert server.server is not None
            state = server.server.server_state
            await until(lambda: len(hub) == 2 and not state.tasks)
            for socket in sockets:
                await socket.send("still here")
                assert await take(socket, 1) == ["still here"]
            assert len(state.connections) == 2
        for socket in sockets:
            await socket.wait_closed()
            assert (socket.close_code, socket.close_reason) == (1012, "service restart")
    assert not hub.is_running, "the lifespan was completed"
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 2
    assert all("the client stays" in record.getMessage() for record in failures)


async def test_fault_04_the_portable_transport_guards_a_socket_too() -> None:
    """While the hub serves it in one task, and after its end, the route's object is no door."""
    hub = Hub()
    hub.on_message(lambda client, message: client.send(message))
    heard: list[str] = []
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/ws")
    async def own(websocket: WebSocket) -> None:
        async def use_meanwhile() -> None:
            await until(lambda: len(hub) == 1)
            for use in USES:
                with pytest.raises(SocketTaken, match="use the client"):
                    await use(websocket)
                heard.append(use.__name__)

        async with asyncio.TaskGroup() as group:
            group.create_task(use_meanwhile())
            await hub.attach(websocket)
        for use in USES:
            with pytest.raises(SocketTaken, match="use the client"):
                await use(websocket)
        heard.append("after the end")

    async with serve(app, native=False) as server:
        async with server.connect("/ws") as socket:
            await until(lambda: len(heard) == len(USES))
            await socket.send("still here")
            assert await take(socket, 1) == ["still here"]
        await until(lambda: "after the end" in heard)


async def test_fault_04_a_socket_is_attached_once(native: bool) -> None:
    hub = Hub()
    outcome: list[str] = []
    app = FastAPI(lifespan=hub.lifespan)

    @app.websocket("/ws")
    async def twice(websocket: WebSocket) -> None:
        await hub.attach(websocket)
        try:
            await hub.attach(websocket)
        except SocketTaken as error:
            outcome.append(error.what)

    async with serve(app, native=native) as server:
        async with server.connect("/ws"):
            await until(lambda: len(hub) == 1)
        await until(lambda: outcome == ["attach"])


async def test_fault_04_a_teardown_that_never_ends_does_not_hold_up_the_shutdown() -> None:
    hub = Hub(shutdown_timeout_s=0.2)

    async def never() -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    app = FastAPI()
    app.include_router(hub.router("/ws", dependencies=[Depends(never)]))
    async with serve(app) as server:
        async with server.connect("/ws"):
            await until(lambda: len(hub) == 1)
        await until(lambda: len(hub) == 0)
        assert server.server is not None
        state = server.server.server_state
        assert len(state.tasks) == 1
    assert not state.tasks
    assert not hub.is_running, "the lifespan was completed"
