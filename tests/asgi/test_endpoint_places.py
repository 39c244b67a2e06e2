"""Endpoint: ids, and places for clients, for addresses and for handshakes in progress."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from asgi.handshakes import LIES, closed, listen, nobody_came, refusal
from hubbub import (
    Client,
    CommandError,
    Handshake,
    Hub,
    Identity,
    Refused,
)
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, set_clock
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio

# Ids and places


async def test_an_id_in_the_query_counts_only_where_it_is_allowed(native: bool) -> None:
    hub = Hub()
    async with serve(hub, native=native) as server, server.connect("/ws?id=ann"):
        await until(lambda: len(hub) == 1)
        assert hub.client("ann") is None
    hub = Hub(client_id_from_query=True)
    async with serve(hub, native=native) as server, server.connect("/ws?id=ann"):
        await until(lambda: hub.client("ann") is not None)


async def test_a_malformed_id_is_a_400(native: bool) -> None:
    hub = Hub(client_id_from_query=True)
    async with serve(hub, native=native) as server:
        for wish in ("", "a%20b", "x" * 65, "%00", "a/b", "%3Cb%3E"):
            answer = await refusal(server, f"/ws?id={wish}")
            assert answer.status == 400
            assert answer.body["code"] == "bad_id"
        assert nobody_came(hub, bad_id=6)


async def test_an_id_of_somebody_else_is_a_409(native: bool) -> None:
    hub = Hub(client_id_from_query=True)
    hub.authenticate(lambda handshake: Identity(user=handshake.query.get("user")))
    async with (
        serve(hub, native=native) as server,
        server.connect("/ws?id=desk&user=ann") as ann,
        server.connect("/ws?id=lobby") as anonymous,
    ):
        for path in (
            "/ws?id=desk&user=bob",
            "/ws?id=desk",
            "/ws?id=lobby",
            "/ws?id=lobby&user=bob",
        ):
            answer = await refusal(server, path)
            assert answer.status == 409
            assert answer.body == {"error": "Another client has this id", "code": "id_in_use"}
        assert len(hub) == 2
        assert hub.stats()["refused"] == {"id_in_use": 4}
        await anonymous.send("still here")
        assert await take(ann, 1) == ["still here"]


async def test_the_same_user_takes_its_id_over(native: bool) -> None:
    hub = Hub(client_id_from_query=True)
    hub.authenticate(lambda handshake: "ann")
    gone: list[tuple[str, int, bool]] = []
    hub.on_disconnect(lambda client, close: gone.append((client.id, close.code, close.by_server)))
    async with serve(hub, native=native) as server, server.connect("/ws?id=desk") as old:
        await until(lambda: len(hub) == 1)
        before = hub.client("desk")
        async with server.connect("/ws?id=desk") as new:
            end = await closed(old)
            assert end.rcvd is not None
            assert (end.rcvd.code, end.rcvd.reason) == (3511, "replaced")
            assert gone == [("desk", 3511, True)]
            after = hub.client("desk")
            assert after is not None
            assert after is not before
            assert hub.clients_of("ann") == [after]
            await new.send("hello")
            assert await take(new, 1) == ["hello"]


async def test_s16_a_loop_that_is_late_takes_nobody_and_recovers(native: bool) -> None:
    hub = Hub(max_loop_lag_s=0.5)
    async with serve(hub, native=native) as server:
        core_of(hub).liveness.stop()  # its real looks would mix with those of the test
        core_of(hub).liveness.note_lag(0.6)
        answer = await refusal(server)
        assert answer.status == 503
        assert answer.body == {"error": "The server has too much to do", "code": "overloaded"}
        assert answer.headers["Retry-After"] == "5"
        assert nobody_came(hub, overloaded=1)
        for _ in range(3):
            core_of(hub).liveness.note_lag(0.01)
        async with server.connect():
            await until(lambda: len(hub) == 1)


async def test_no_more_clients_of_an_address_than_it_may_have(native: bool) -> None:
    hub = Hub(max_clients_per_address=2)
    async with serve(hub, native=native) as server:
        async with server.connect(), server.connect() as second:
            await until(lambda: len(hub) == 2)
            answer = await refusal(server)
            assert answer.status == 503
            assert answer.body["code"] == "too_many_from_address"
            assert answer.headers["Retry-After"] == "5"
            await second.close()
            await until(lambda: len(hub) == 1)
            async with server.connect():
                await until(lambda: len(hub) == 2)
        assert hub.stats()["refused"] == {"too_many_from_address": 1}


async def test_who_is_no_proxy_cannot_choose_its_address(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen(caplog)
    hub = Hub(max_clients_per_address=2)
    seen: list[tuple[str | None, str]] = []
    hub.on_connect(lambda client, handshake: seen.append((client.address, handshake.scheme)))
    async with serve(hub, native=native, forwarded_allow_ips="192.0.2.1") as server:
        lies = [{**LIES, "X-Forwarded-For": f"203.0.113.{host}"} for host in (7, 8)]
        async with (
            server.connect(additional_headers=lies[0]),
            server.connect(additional_headers=lies[1]),
        ):
            await until(lambda: len(hub) == 2)
            answer = await refusal(server, **LIES)
            assert answer.body["code"] == "too_many_from_address"
    assert seen == [("127.0.0.1", "ws")] * 2
    assert "a handshake from 127.0.0.1 was refused: 503 too_many_from_address" in caplog.text
    assert "203.0.113" not in caplog.text


async def test_a_proxy_that_is_trusted_says_whose_address_it_is(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen(caplog)
    hub = Hub(max_clients_per_address=1)
    seen: list[tuple[str | None, str]] = []
    hub.on_connect(lambda client, handshake: seen.append((client.address, handshake.scheme)))
    async with serve(hub, native=native, forwarded_allow_ips="127.0.0.1") as server:
        # What the client wrote comes first, what the proxy saw comes last and counts.
        came = [{**LIES, "X-Forwarded-For": f"127.0.0.1, 192.0.2.{host}"} for host in (7, 8)]
        async with (
            server.connect(additional_headers=came[0]),
            server.connect(additional_headers=came[1]),
        ):
            await until(lambda: len(hub) == 2)
            answer = await refusal(server, **came[0])
            assert answer.body["code"] == "too_many_from_address"
    assert sorted(seen) == [("192.0.2.7", "wss"), ("192.0.2.8", "wss")]
    assert "a handshake from 192.0.2.7 was refused: 503 too_many_from_address" in caplog.text


async def test_no_more_clients_than_places(native: bool) -> None:
    hub = Hub(max_clients=2)
    async with serve(hub, native=native) as server:
        async with server.connect(), server.connect():
            await until(lambda: len(hub) == 2)
            answer = await refusal(server)
            assert answer.status == 503
            assert answer.body == {"error": "All 2 places are taken", "code": "too_many_clients"}
            assert answer.headers["Retry-After"] == "5"
            assert len(hub) == 2
            assert hub.stats()["refused"] == {"too_many_clients": 1}
        await until(lambda: len(hub) == 0)
        async with server.connect() as client:
            await client.send("a place again")
            assert await take(client, 1) == ["a place again"]


async def test_many_at_once_do_not_get_more_than_the_places(native: bool) -> None:
    hub = Hub(max_clients=5)

    @hub.authenticate
    async def who(handshake: Handshake) -> Identity:
        await asyncio.sleep(0.01)
        return Identity()

    async with serve(hub, native=native) as server:
        attempts = [server.connect() for _ in range(20)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        clients = [outcome for outcome in outcomes if isinstance(outcome, ClientConnection)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, InvalidStatus)]
        assert (len(clients), len(refused)) == (5, 15)
        assert {outcome.response.status_code for outcome in refused} == {503}
        assert len(hub) == 5
        for client in clients:
            await client.close()


async def test_handshakes_in_progress_are_counted(native: bool) -> None:
    hub = Hub()
    answer = asyncio.Event()

    @hub.authenticate
    async def who(handshake: Handshake) -> Identity:
        await answer.wait()
        return Identity()

    async with serve(hub, native=native) as server:
        attempts = [asyncio.create_task(connect(server)) for _ in range(3)]
        await until(lambda: hub.stats()["register"] == 3)
        answer.set()
        sockets = await asyncio.gather(*attempts)
        await until(lambda: hub.stats()["register"] == 0)
        assert len(hub) == 3
        for socket in sockets:
            await socket.close()


async def connect(server: Served, path: str = "/ws") -> ClientConnection:
    return await server.connect(path)


async def test_a_client_that_goes_during_its_handshake_leaves_nothing(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen(caplog)
    hub = Hub()
    answer = asyncio.Event()
    joined: list[Client] = []
    hub.on_connect(joined.append)

    @hub.authenticate
    async def who(handshake: Handshake) -> Identity | None:
        await answer.wait()
        return Identity() if "welcome" in handshake.query else None

    routes = [WebSocketRoute("/ws", hub), WebSocketRoute("/own", lambda: None)]
    app = Starlette(routes=routes, lifespan=hub.lifespan)
    async with serve(app, native=native, log_config=None, log_level="info") as server:
        for path in ("/ws?welcome", "/ws?refused"):
            await leave_early(server, path)
        await until(lambda: hub.stats()["register"] == 2)
        assert server.server is not None
        state = server.server.server_state
        await until(lambda: not state.connections)
        answer.set()
        await until(lambda: hub.stats()["register"] == 0 and not state.tasks)
    assert len(hub) == 0
    assert all(not client.is_connected for client in joined)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


SECRETS = ["s3cr3t-token", "s3cr3t-bearer", "s3cr3t-cookie", "s3cr3t-payload"]


FORGED = "x\nINFO: client admin connected\x1b[31m\r\n"


async def test_nothing_that_a_client_writes_forges_a_log_line_or_tells_a_secret(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen(caplog)
    # uvicorn's own class shows all headers at DEBUG; under the hub's class nothing does.
    caplog.set_level(logging.INFO, "uvicorn.access")
    caplog.set_level(logging.DEBUG if native else logging.INFO, "uvicorn.error")
    caplog.handler.setLevel(logging.DEBUG)
    hub = Hub(client_id_from_query=True, messages_per_second=20)
    set_clock(hub, FakeClock())  # nobody is given leave for more messages while this one sends them
    problems: list[str] = []

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        if "refuse" in handshake.query:
            raise Refused(401, FORGED, FORGED)
        return Identity(user=FORGED)

    @hub.validate
    def read(client: Client, message: str) -> None:
        try:
            client.join(FORGED)
        except CommandError as error:
            problems.append(error.code)
        raise CommandError(FORGED, FORGED)

    secrets = {
        "Authorization": f"Bearer {SECRETS[1]}",
        "Cookie": f"session={SECRETS[2]}",
    }
    path = f"/%0AINFO:%20forged%1B[31m?token={SECRETS[0]}&x=%0AINFO"
    config: dict[str, Any] = {"log_config": None, "log_level": "debug" if native else "info"}
    async with serve(hub, native=native, **config) as server:
        for query in ("&refuse=", "&id=%0AINFO"):
            await refusal(server, path + query, **secrets)
        for odd in ("\x1b[31m", "é"):
            await ask_raw(server, f"{path}{odd}".encode())
        async with server.connect(path, additional_headers=secrets) as socket:
            await socket.send(f"{SECRETS[3]} {FORGED}")
            await socket.send(json.dumps({"type": SECRETS[3] + FORGED}))
            assert len(await take(socket, 2)) == 2
            await socket.close(4000, SECRETS[3] + "\nINFO: forged")
        async with server.connect(path, additional_headers=secrets) as socket:
            for _ in range(41):
                await socket.send(SECRETS[3])
            await closed(socket)
        await until(lambda: hub.stats()["rate_limited"] == 1 and len(hub) == 0)
    assert set(problems) == {"bad_room"}
    lines = [record.getMessage() for record in caplog.records]
    for expected in ("401 x", "sent an invalid message: x", "messages per second; closed"):
        assert any(expected in line for line in lines), expected
    assert [line for line in lines if not line.isprintable()] == []
    assert [line for line in lines if any(secret in line for secret in SECRETS)] == []


async def ask_raw(server: Served, target: bytes) -> None:
    """Ask for a socket at a target that no library would send, and hear the answer's beginning."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Origin: http://\x9b31m\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.read(9), PATIENCE_S)) == b"HTTP/1.1 "
    writer.transport.abort()
    await asyncio.sleep(0)


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


# Plain requests and their places


async def test_fault_09_gets_that_ask_why_go_through_the_same_door_as_handshakes(
    native: bool,
) -> None:
    hub = Hub(max_clients_per_address=5)
    go_on = asyncio.Event()
    asked = most = 0

    @hub.authenticate
    async def who(handshake: Handshake) -> None:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        await go_on.wait()
        asked -= 1

    async with serve(hub, native=native) as server:
        handshakes = [asyncio.create_task(connect(server)) for _ in range(2)]
        await until(lambda: hub.stats()["register"] == 2)
        gets = [asyncio.create_task(get_raw(server)) for _ in range(300)]
        refused = core_of(hub).stats.refused_gets
        await until(lambda: refused == {"too_many_from_address": 297})
        assert hub.stats()["register"] == 5
        go_on.set()
        statuses = [await each for each in gets]
        assert (statuses.count(503), statuses.count(401)) == (297, 3)
        await asyncio.gather(*handshakes, return_exceptions=True)
        assert most == 5
        assert hub.stats()["refused_gets"] == {"too_many_from_address": 297, "unauthorized": 3}
        assert hub.stats()["refused"] == {"unauthorized": 2}
        await until(lambda: hub.stats()["register"] == 0)
        assert len(core_of(hub).admission._networks) == 0


async def get_raw(server: Served) -> int:
    """Ask why by a plain GET; return the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        return int((await asyncio.wait_for(reader.readline(), PATIENCE_S)).split()[1])
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)
