"""The hub's doors: handshakes and refusals on both transports, plain requests, Starlette."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from hubbub import (
    Client,
    CommandError,
    Disconnected,
    Handshake,
    HttpProtocol,
    Hub,
    Identity,
    MemoryBroker,
    MissingExtra,
    Refused,
)
from hubbub.asgi import endpoint as endpoint_module
from hubbub.asgi.endpoint import read_handshake
from hubbub.brokers.broker import Node
from hubbub.hub.core import core_of
from hubbub.limits import MAX_HEAD_BYTES, MAX_HEADERS
from serving import PATIENCE_S, Served, serve, take, until

pytestmark = pytest.mark.anyio

Authenticate = Callable[[Handshake], Any]


@pytest.fixture(params=[True, False], ids=["native", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    """Run a test on both transports."""
    return bool(request.param)


class Answer(NamedTuple):
    """How a server answered a request."""

    status: int
    headers: httpx2.Headers
    body: Any


async def get(
    server: Served, path: str = "/ws", *, method: str = "GET", **headers: str
) -> httpx2.Response:
    # There is no TLS here, and loading certificates takes longer than most of these tests.
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as web:
        return await web.request(method, server.http(path), headers=headers)


async def refusal(server: Served, path: str = "/ws", **headers: str) -> Answer:
    """Be refused; prove that a plain GET of the same URL gets the same status and body."""
    with pytest.raises(InvalidStatus) as caught:
        await server.connect(path, additional_headers=headers)
    response = caught.value.response
    answer = await get(server, path, **headers)
    assert answer.status_code == response.status_code
    assert answer.content == response.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/json"
    return Answer(
        response.status_code, httpx2.Headers(list(response.headers.raw_items())), answer.json()
    )


async def closed(client: ClientConnection) -> ConnectionClosed:
    """Wait for the end of a connection; return how it ended."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE_S)
    except ConnectionClosed as end:
        return end


def nobody_came(hub: Hub, **refused: int) -> bool:
    """Tell whether nothing was registered, and the refusals were counted by their codes."""
    stats = hub.stats()
    return (
        len(hub) == 0
        and stats["total_clients"] == 0
        and stats["register"] == 0
        and hub.rooms == {}
        and stats["refused"] == refused
    )


def listen(caplog: pytest.LogCaptureFixture) -> None:
    """Hear the hub and uvicorn, whatever an earlier test's server did to the loggers."""
    caplog.set_level(logging.DEBUG, "hubbub")
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        caplog.set_level(logging.INFO, name)


# Origins


@pytest.mark.parametrize(
    ("origins", "pass_", "refused"),
    [
        (
            None,
            # The scheme does not count: a proxy may end TLS.
            [None, "http://127.0.0.1:{port}", "https://127.0.0.1:{port}"],
            ["http://127.0.0.1", "http://localhost:{port}", "https://evil.example", "null"],
        ),
        (
            ("https://good.example",),
            [None, "https://good.example", "https://GOOD.example"],
            [
                "http://good.example",
                "https://good.example:444",
                "https://good.example.evil.test",
                "http://127.0.0.1:{port}",
            ],
        ),
        (
            ("same-origin", "https://*.example.com"),
            ["https://a.example.com", "https://a.b.example.com", "http://127.0.0.1:{port}"],
            [
                "https://example.com",
                "https://evilexample.com",
                "https://a.example.com.evil.test",
                "http://a.example.com",
            ],
        ),
        (("*",), [None, "https://evil.example", "null"], []),
    ],
)
async def test_s15_an_origin_passes_or_not(
    native: bool,
    origins: tuple[str, ...] | None,
    pass_: list[str | None],
    refused: list[str],
) -> None:
    hub = Hub() if origins is None else Hub(origins=origins)
    async with serve(hub, native=native) as server:
        for origin in refused:
            answer = await refusal(server, Origin=origin.format(port=server.port))
            assert answer.status == 403, origin
        assert nobody_came(hub, **({"origin_refused": len(refused)} if refused else {}))
        for allowed in pass_:
            headers = {} if allowed is None else {"Origin": allowed.format(port=server.port)}
            async with server.connect(additional_headers=headers) as client:
                await client.send("hello")
                assert await take(client, 1) == ["hello"]


@pytest.mark.parametrize(
    ("origins", "pass_", "refused"),
    [
        (
            ("http://localhost:*", "https://bücher.example:443"),
            ["http://localhost:5173", "http://LOCALHOST", "https://xn--bcher-kva.example"],
            ["https://localhost:5173", "http://localhost.evil.example:1", "null"],
        ),
        (("null", "http://[0:0::1]:80"), ["null", "http://[::1]"], ["file://", "http://[::2]"]),
        (("file://",), ["file://"], ["null"]),
    ],
)
async def test_fault_15_what_the_setting_names_may_connect(
    native: bool, origins: tuple[str, ...], pass_: list[str], refused: list[str]
) -> None:
    hub = Hub(origins=origins)
    async with serve(hub, native=native) as server:
        for origin in refused:
            assert (await refusal(server, Origin=origin)).body["code"] == "origin_refused", origin
        assert nobody_came(hub, origin_refused=len(refused))
        for origin in pass_:
            async with server.connect(additional_headers={"Origin": origin}) as client:
                await client.send("hello")
                assert await take(client, 1) == ["hello"]
            answer = await get(server, Origin=origin)
            assert answer.headers["Access-Control-Allow-Origin"] == origin


async def test_s15_the_refusal_names_the_origin(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    async with serve(hub, native=native) as server:
        answer = await refusal(server, Origin="https://evil.example")
        assert answer.status == 403
        assert answer.body == {
            "error": "The origin https://evil.example may not connect; "
            "add it to the setting 'origins'",
            "code": "origin_refused",
            "origin": "https://evil.example",
        }
        assert nobody_came(hub, origin_refused=1)
    line = "a handshake from 127.0.0.1 was refused: 403 origin_refused (https://evil.example)"
    assert ("hubbub", logging.WARNING, line) in caplog.record_tuples  # seen without logging set up


async def test_a_flood_of_other_refusals_does_not_hide_those_of_a_setting(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    async with serve(hub, native=native) as server:
        for _ in range(20):
            await refusal(server)
        await refusal(server, Origin="https://evil.example")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings
    assert all("403 origin_refused (https://evil.example)" in line for line in warnings)


async def test_s15_a_foreign_page_is_refused_before_anybody_asks_who_it_is(native: bool) -> None:
    """The cookies that a browser sends along are not even looked at."""
    hub = Hub()
    asked: list[Handshake] = []
    hub.authenticate(asked.append)
    async with serve(hub, native=native) as server:
        assert (await refusal(server, Origin="https://evil.example", Cookie="s=1")).status == 403
    assert not asked


# Who it is


def refuse_with_details(handshake: Handshake) -> None:
    raise Refused(
        429, "slow_down", "Come later", headers={"Retry-After": "7"}, details={"wait_s": 7}
    )


def refuse_as_starlette(handshake: Handshake) -> None:
    raise HTTPException(404, "No such project", headers={"X-Why": "gone"})


async def refuse_async(handshake: Handshake) -> None:
    await asyncio.sleep(0)
    raise Refused


def find_nobody(handshake: Handshake) -> None:
    return None


async def find_nobody_async(handshake: Handshake) -> None:
    await asyncio.sleep(0)


def say_false(handshake: Handshake) -> bool:
    return False


def forbid(handshake: Handshake) -> None:
    raise Refused(403)


REFUSERS: list[tuple[Authenticate, int, dict[str, Any]]] = [
    (find_nobody, 401, {"error": "Unauthorized", "code": "unauthorized"}),
    (find_nobody_async, 401, {"error": "Unauthorized", "code": "unauthorized"}),
    (say_false, 401, {"error": "Unauthorized", "code": "unauthorized"}),
    (refuse_async, 401, {"error": "Unauthorized", "code": "unauthorized"}),
    (forbid, 403, {"error": "Forbidden", "code": "forbidden"}),
    (refuse_with_details, 429, {"error": "Come later", "code": "slow_down", "wait_s": 7}),
    (refuse_as_starlette, 404, {"error": "No such project", "code": "not_found"}),
]


async def test_s16_authenticate_refuses_with_a_status_and_json(native: bool) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: REFUSERS[int(handshake.query["case"])][0](handshake))
    async with serve(hub, native=native) as server:
        headers = {}
        for case, (function, status, body) in enumerate(REFUSERS):
            answer = await refusal(server, f"/ws?case={case}&token=secret")
            assert (answer.status, answer.body) == (status, body), function
            headers[function] = answer.headers
        assert nobody_came(hub, unauthorized=4, forbidden=1, slow_down=1, not_found=1)
        assert headers[refuse_with_details]["Retry-After"] == "7"
        assert headers[refuse_as_starlette]["X-Why"] == "gone"


def fail(handshake: Handshake) -> None:
    raise LookupError("no database")


async def fail_async(handshake: Handshake) -> None:
    await asyncio.sleep(0)
    raise LookupError("no database")


def return_nonsense(handshake: Handshake) -> Any:
    return 7


@pytest.mark.parametrize("function", [fail, fail_async, return_nonsense])
async def test_a_broken_authenticate_handler_is_a_500_that_tells_nothing(
    native: bool, function: Authenticate, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()
    hub.authenticate(function)
    async with serve(hub, native=native) as server:
        answer = await refusal(server)
    assert answer.status == 500
    assert answer.body == {"error": "Internal Server Error", "code": "internal_error"}
    assert nobody_came(hub, internal_error=1)
    failures = [record for record in caplog.records if "authenticate" in record.message]
    assert len(failures) == 2, "one for the handshake, one for the GET"
    assert all(record.exc_info for record in failures)


async def test_a_slow_authenticate_handler_is_cut_off(native: bool) -> None:
    hub = Hub(handshake_timeout_s=0.05)

    @hub.authenticate
    async def never(handshake: Handshake) -> str:
        await asyncio.sleep(60)
        return "too late"

    async with serve(hub, native=native) as server:
        answer = await refusal(server)
    assert answer.status == 503
    assert answer.body["code"] == "handshake_timeout"
    assert "0.05 seconds" in answer.body["error"]
    assert nobody_came(hub, handshake_timeout=1)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
async def test_fault_18_a_timeout_of_the_application_s_own_is_not_the_handshake_s(
    native: bool, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(handshake_timeout_s=60)

    def ask_database(handshake: Handshake) -> str:
        raise TimeoutError("the database did not answer")

    async def ask_database_later(handshake: Handshake) -> str:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
        return ""

    if is_async:
        hub.authenticate(ask_database_later)
    else:
        hub.authenticate(ask_database)
    async with serve(hub, native=native) as server:
        answer = await refusal(server)
    assert (answer.status, answer.body["code"]) == (500, "internal_error")
    assert nobody_came(hub, internal_error=1)
    assert "the authenticate handler failed" in caplog.text
    assert "TimeoutError" in caplog.text


async def test_an_identity_becomes_the_client(native: bool) -> None:
    hub = Hub()

    @hub.authenticate
    async def who(handshake: Handshake) -> Identity:
        await asyncio.sleep(0)
        return Identity(
            user=handshake.query["user"],
            meta={"role": handshake.headers["x-role"], "theme": handshake.cookies["theme"]},
            client_id="chosen",
            subprotocol="v2" if "v2" in handshake.subprotocols else None,
        )

    async with (
        serve(hub, native=native) as server,
        server.connect(
            "/ws?user=ann&user=b%C3%A9a",
            additional_headers={"X-Role": "admin", "Cookie": "a=1; theme=dark"},
            subprotocols=[Subprotocol("v1"), Subprotocol("v2")],
        ) as socket,
    ):
        await until(lambda: len(hub) == 1)
        client = hub.client("chosen")
        assert client is not None
        assert client.user == "béa"
        assert client.meta == {"role": "admin", "theme": "dark"}
        assert client.address == "127.0.0.1"
        assert socket.subprotocol == "v2"
        assert hub.clients_of("béa") == [client]


async def test_a_subprotocol_that_was_not_offered_is_not_chosen(native: bool) -> None:
    """RFC 6455 section 4.1: a browser fails the connection over one that it did not offer."""
    hub = Hub()
    hub.authenticate(lambda handshake: Identity(subprotocol="v2"))
    async with (
        serve(hub, native=native) as server,
        server.connect() as plain,
        server.connect(subprotocols=[Subprotocol("v1")]) as old,
        server.connect(subprotocols=[Subprotocol("v2")]) as new,
    ):
        assert [plain.subprotocol, old.subprotocol, new.subprotocol] == [None, None, "v2"]


@pytest.mark.parametrize(
    ("answer", "user"), [("ann", "ann"), (Identity(), None), (Identity(user="bob"), "bob")]
)
async def test_authenticate_may_answer_in_short(
    native: bool, answer: Identity | str, user: str | None
) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: answer)
    async with serve(hub, native=native) as server, server.connect():
        await until(lambda: len(hub) == 1)
        assert [client.user for client in hub] == [user]


TOKENS: list[tuple[str, dict[str, str], str | None]] = [
    ("?token=in-the-query", {}, "in-the-query"),
    ("?token=a%2Bb%20c", {}, "a+b c"),
    ("?token=", {}, None),
    ("", {}, None),
    ("", {"Authorization": "Bearer in-the-header"}, "in-the-header"),
    ("", {"Authorization": "bearer in-the-header"}, "in-the-header"),
    ("?token=query", {"Authorization": "Bearer header"}, "header"),
    ("?token=query", {"Authorization": "Basic dTpw"}, "query"),
]


async def test_s16_a_token_comes_by_header_or_query(native: bool) -> None:
    hub = Hub()
    seen: list[str | None] = []

    @hub.authenticate
    def who(handshake: Handshake) -> Identity:
        seen.append(handshake.token)
        return Identity()

    async with serve(hub, native=native) as server:
        for query, headers, _ in TOKENS:
            async with server.connect(f"/ws{query}", additional_headers=headers):
                pass
    assert seen == [token for _, _, token in TOKENS]


async def test_the_connect_handler_may_read_the_handshake(native: bool) -> None:
    hub = Hub()

    @hub.on_connect
    def greet(client: Client, handshake: Handshake) -> None:
        client.send(f"{handshake.path} {handshake.query['page']} {handshake.scheme}")

    async with serve(hub, native=native) as server, server.connect("/ws?page=7") as socket:
        assert await take(socket, 1) == ["/ws 7 ws"]


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


LIES = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Real-IP": "203.0.113.7",
    "Forwarded": "for=203.0.113.7;host=evil.example;proto=https",
}
"""What a client may write into its handshake to seem another."""


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


@pytest.mark.parametrize("trusted", ["127.0.0.1", "192.0.2.1"])
async def test_s15_no_header_but_host_says_what_the_same_origin_is(
    native: bool, trusted: str
) -> None:
    hub = Hub()
    async with serve(hub, native=native, forwarded_allow_ips=trusted) as server:
        answer = await refusal(server, Origin="https://evil.example", **LIES)
        assert (answer.status, answer.body["code"]) == (403, "origin_refused")
        here = f"http://127.0.0.1:{server.port}"
        async with server.connect(additional_headers={"Origin": here, **LIES}):
            await until(lambda: len(hub) == 1)


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


# Plain requests


async def test_s16_a_plain_get_where_a_socket_would_be_accepted_is_a_426(native: bool) -> None:
    hub = Hub()
    async with serve(hub, native=native) as server:
        answer = await get(server)
        assert answer.status_code == 426
        assert answer.headers["Upgrade"] == "websocket"
        assert answer.headers["Connection"] == "Upgrade"
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json() == {
            "error": "This is a WebSocket: connect with ws:// or wss://",
            "code": "upgrade_required",
        }
        head = await get(server, method="HEAD")
        assert (head.status_code, head.content) == (426, b"")
        assert head.headers["Content-Length"] == answer.headers["Content-Length"]
        assert nobody_came(hub), "a plain request registers nobody and is no refused handshake"


async def test_other_methods_are_not_allowed(native: bool) -> None:
    async with serve(Hub(), native=native) as server:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            answer = await get(server, method=method)
            assert answer.status_code == 405
            assert answer.headers["Allow"] == "GET, HEAD"
            assert answer.json()["code"] == "method_not_allowed"


async def test_the_javascript_client_is_served_to_everybody() -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    kinds = {
        "hubbub.js": "text/javascript; charset=utf-8",
        "hubbub.d.ts": "text/plain; charset=utf-8",
    }
    async with serve(hub) as server:
        for name, kind in kinds.items():
            answer = await get(server, f"/ws/{name}")
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == kind
            assert "export" in answer.text
            head = await get(server, f"/ws/{name}", method="HEAD")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["Content-Length"] == str(len(answer.content))


async def test_pages_of_allowed_foreign_origins_may_read_the_answers() -> None:
    hub = Hub(origins=("same-origin", "https://good.example"))
    async with serve(hub) as server:
        for path in ("/ws", "/ws/hubbub.js"):
            await check_cors(server, path)
        evil = {"Origin": "https://evil.example"}
        assert not cors_of(await get(server, "/ws/hubbub.js", **evil))


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_fault_11_a_page_that_may_not_connect_can_read_that(native: bool, http: str) -> None:
    """Without the CORS headers it learns nothing, and tries for ever."""
    hub = Hub(origins=("https://good.example",))
    hub.authenticate(lambda handshake: None)
    async with serve(hub, native=native, http=http) as server:
        evil = await get(server, Origin="https://evil.example")
        assert (evil.status_code, evil.json()["code"]) == (403, "origin_refused")
        assert evil.headers["Access-Control-Allow-Origin"] == "https://evil.example"
        assert evil.headers["Access-Control-Allow-Credentials"] == "true"
        good = await get(server, Origin="https://good.example")
        assert (good.status_code, good.json()["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_fault_11_a_get_is_answered_as_the_handshake_of_its_page(
    native: bool, http: str
) -> None:
    """A browser sends no Origin with a GET of the same origin, and hubbub.js a Referer."""
    page = "https://page.example:8443"
    async with serve(Hub(), native=native, http=http) as server:
        refused = await refusal(server, Origin=page)
        answer = await get(server, Referer=f"{page}/")
        assert (answer.status_code, answer.json()) == (refused.status, refused.body)
        assert refused.body["origin"] == page
        assert (await get(server, Referer=f"{page}/room/1?a=b")).json() == refused.body
        # What is a navigation, and what names this very host.
        assert (
            await get(server, Referer=page, **{"Sec-Fetch-Mode": "navigate"})
        ).status_code == 426
        assert (await get(server, Referer=server.http("/a"))).status_code == 426
        own = f"http://127.0.0.1:{server.port}"
        assert (await get(server, Referer=f"{page}/", Origin=own)).status_code == 426
        for nonsense in ("http://[", "http://", "https://a:b:c/", "about:client", "//x"):
            assert (await get(server, Referer=nonsense)).status_code in (403, 426), nonsense
    async with serve(Hub(origins=(page,)), native=native, http=http) as server:
        assert (await get(server, Referer=f"{page}/")).status_code == 426


async def check_cors(server: Served, path: str) -> None:
    good = await get(server, path, Origin="https://good.example")
    assert good.headers["Access-Control-Allow-Origin"] == "https://good.example"
    assert good.headers["Access-Control-Allow-Credentials"] == "true"
    assert good.headers["Vary"] == "Origin"
    assert not cors_of(await get(server, path))
    assert not cors_of(await get(server, path, Origin=f"http://127.0.0.1:{server.port}"))


def cors_of(answer: httpx2.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control")]


async def test_s16_no_token_is_in_any_log_line(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the hub's, nor in uvicorn's access lines: accepted, refused, asked by GET."""
    listen(caplog)
    hub = Hub()

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        return "ann" if handshake.token == "s3cr3t-good" else None

    @hub.on_message
    def boom(client: Client, message: str) -> None:
        raise LookupError("a handler that fails")

    async with serve(hub, native=native, log_config=None, log_level="info") as server:
        async with server.connect("/ws?token=s3cr3t-good&room=7") as client:
            await client.send("x")
            await closed(client)
        bearer = {"Authorization": "Bearer s3cr3t-good"}
        async with server.connect(additional_headers=bearer) as client:
            await client.send("x" * 600)
            await closed(client)
        await refusal(server, "/ws?token=s3cr3t-bad&room=7")
        await get(server, "/ws?token=s3cr3t-good")
        await get(server, "/ws?token=s3cr3t-good", method="POST")
    ours = [record for record in caplog.records if record.name.startswith(("hubbub", "uvicorn"))]
    lines = [logging.Formatter("%(message)s").format(record) for record in ours]
    assert [line for line in lines if "room=7" in line and "[accepted]" in line]
    assert [line for line in lines if "401 unauthorized" in line]
    assert [line for line in lines if "a handler that fails" in line]
    assert not [line for line in lines if "s3cr3t" in line]


async def test_refusals_are_logged_with_the_address_and_not_in_a_flood(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hubbub")
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    async with serve(hub, native=native) as server:
        for _ in range(50):
            with pytest.raises(InvalidStatus):
                await server.connect()
    lines = [line for line in caplog.messages if "refused" in line]
    assert lines[0] == "a handshake from 127.0.0.1 was refused: 401 unauthorized"
    assert len(lines) < 20
    assert hub.stats()["refused"] == {"unauthorized": 50}


# Starlette


async def clients(request: Request) -> JSONResponse:
    return JSONResponse({"clients": len(request.state.hub)})


async def chat(server: Served, path: str) -> None:
    """Prove that two clients at `path` hear each other."""
    async with server.connect(path) as one, server.connect(path) as other:
        await one.send("hello")
        assert await take(other, 1) == ["hello"]
        assert await take(one, 1) == ["hello"]


async def test_s01_the_lifespan_puts_the_hub_into_the_requests_state(native: bool) -> None:
    hub = Hub()

    async def greet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{len(websocket.state.hub)} here")
        await websocket.close()

    app = Starlette(
        routes=[
            Route("/clients", clients),
            WebSocketRoute("/greet", greet),
            WebSocketRoute("/ws", hub),
        ],
        lifespan=hub.lifespan,
    )
    async with serve(app, native=native) as server, server.connect():
        await until(lambda: len(hub) == 1)
        assert (await get(server, "/clients")).json() == {"clients": 1}
        async with server.connect("/greet") as socket:
            assert await take(socket, 1) == ["1 here"]


async def test_s07_starlette_takes_the_hub_as_an_endpoint(native: bool) -> None:
    hub = Hub()
    routes = [WebSocketRoute("/ws", hub), Route("/ws", hub), Route("/ws/hubbub.js", hub)]
    async with serve(Starlette(routes=routes, lifespan=hub.lifespan), native=native) as server:
        await chat(server, "/ws")
        assert (await get(server)).status_code == 426
        assert (await get(server, method="POST")).status_code == 405
        assert "export" in (await get(server, "/ws/hubbub.js")).text


async def test_s07_starlette_mounts_the_hub(native: bool) -> None:
    """Starlette's `Mount` matches what is under its path: the socket's URL ends in a slash."""
    hub = Hub()
    app = Starlette(routes=[Mount("/ws", app=hub)], lifespan=hub.lifespan)
    async with serve(app, native=native) as server:
        await chat(server, "/ws/")
        assert (await get(server, "/ws/")).status_code == 426
        assert "export" in (await get(server, "/ws/hubbub.js")).text


async def test_s07_the_hub_alone_is_an_application(native: bool) -> None:
    async with serve(Hub(), native=native) as server:
        await chat(server, "/")
        await chat(server, "/anything")


async def test_s07_attach_takes_the_socket_of_a_route(native: bool) -> None:
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    returned: list[int] = []

    async def project(websocket: WebSocket) -> None:
        meta = {"project": websocket.path_params["project"]}
        await hub.attach(websocket, identity=Identity(user="ann", meta=meta))
        returned.append(len(hub))

    async def strangers(websocket: WebSocket) -> None:
        await hub.attach(websocket)

    routes = [WebSocketRoute("/projects/{project}", project), WebSocketRoute("/ws", strangers)]
    app = Starlette(routes=routes, lifespan=hub.lifespan)
    async with serve(app, native=native) as server:
        async with server.connect("/projects/apollo") as socket:
            await socket.send("hello")
            assert await take(socket, 1) == ["hello"]
            assert [(c.user, c.meta) for c in hub] == [("ann", {"project": "apollo"})]
            assert returned == ([1] if native else []), "the native transport holds no ASGI call"
        await until(lambda: len(hub) == 0)
        with pytest.raises(InvalidStatus) as caught:
            await server.connect()
        assert caught.value.response.status_code == 401


async def test_attach_does_not_take_an_accepted_socket(
    native: bool, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    async def mistaken(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(RuntimeError, match="do not call accept"):
            await hub.attach(websocket)
        await websocket.close(4000)

    async with (
        serve(Starlette(routes=[WebSocketRoute("/ws", mistaken)]), native=native) as server,
        server.connect() as socket,
    ):
        end = (await closed(socket)).rcvd
        assert end is not None
        assert end.code == 4000
    assert len(hub) == 0


async def test_deflate_is_left_to_the_applications_own_sockets() -> None:
    hub = Hub()

    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    routes = [WebSocketRoute("/ws", hub), WebSocketRoute("/own", own)]
    async with serve(Starlette(routes=routes, lifespan=hub.lifespan)) as server:
        async with server.connect("/ws", compression="deflate") as socket:
            assert socket.protocol.extensions == []
            await socket.send("plain " * 50)
            assert await take(socket, 1) == ["plain " * 50]
        async with server.connect("/own", compression="deflate") as socket:
            assert [e.name for e in socket.protocol.extensions] == ["permessage-deflate"]
            await socket.send("squeezed " * 500)
            assert await take(socket, 1) == ["squeezed " * 500]


# Sockets of the application's own, under the native class


class Own:
    """Starlette routes that no hub has anything to do with."""

    def __init__(self) -> None:
        self.gone: list[int] = []

    async def echo(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"])
                await websocket.send({**message, "type": "websocket.send"})
        except WebSocketDisconnect as end:
            self.gone.append(end.code)

    async def close(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4123, "as agreed")

    async def deny(self, websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("not you", 418))

    async def fail(self, websocket: WebSocket) -> None:
        await websocket.accept()
        raise LookupError("a route that fails")

    async def refuse(self, websocket: WebSocket) -> None:
        await websocket.close(1008)


@contextlib.asynccontextmanager
async def own_routes(**config: Any) -> AsyncIterator[tuple[Own, Served]]:
    hub, own = Hub(), Own()
    names = ("echo", "close", "deny", "fail", "refuse")
    routes = [WebSocketRoute(f"/{name}", getattr(own, name)) for name in names]
    app = Starlette(routes=[WebSocketRoute("/ws", hub), *routes], lifespan=hub.lifespan)
    async with serve(app, **config) as server:
        yield own, server


async def test_own_sockets_echo_small_and_big_messages() -> None:
    async with (
        own_routes() as (_, server),
        server.connect("/echo", subprotocols=[Subprotocol("own")]) as socket,
    ):
        assert socket.subprotocol == "own"
        for message in ("", "hello", "ü" * 70_000, b"", b"\x00\xff", b"x" * 3_000_000):
            await socket.send(message)
            assert await take(socket, 1) == [message]
        await socket.send(["in ", "three ", "frames"])
        assert await take(socket, 1) == ["in three frames"]
        await asyncio.wait_for(await socket.ping(), PATIENCE_S)


async def test_own_sockets_learn_that_the_client_went() -> None:
    async with own_routes() as (own, server):
        async with server.connect("/echo") as socket:
            await socket.close(4001, "enough")
        await until(lambda: own.gone == [4001])
        socket = await server.connect("/echo")
        socket.transport.abort()
        await until(lambda: len(own.gone) == 2)


async def test_own_sockets_close_deny_and_fail_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    listen(caplog)
    async with own_routes(log_config=None) as (_, server):
        async with server.connect("/close") as socket:
            end = (await closed(socket)).rcvd
            assert end is not None
            assert (end.code, end.reason) == (4123, "as agreed")
        for path, status, body in (
            ("/deny", 418, b"not you"),
            ("/refuse", 403, b""),
            ("/no", 403, b""),
        ):
            with pytest.raises(InvalidStatus) as caught:
                await server.connect(path)
            assert (caught.value.response.status_code, caught.value.response.body) == (status, body)
        async with server.connect("/fail") as socket:
            await closed(socket)
    assert "a route that fails" in caplog.text


async def test_own_sockets_see_the_server_end() -> None:
    async with own_routes() as (own, server):
        socket = await server.connect("/echo")
        await socket.send("hello")
        await take(socket, 1)
    end = (await closed(socket)).rcvd
    assert end is not None
    assert end.code == 1012
    assert own.gone == [1012]


# Lifespans, loops and threads


class BrokenBroker(MemoryBroker):
    """A broker that cannot be reached."""

    async def start(self, node: Node) -> None:
        raise ConnectionError("no broker at 127.0.0.1")


async def test_a_hub_that_cannot_start_says_so_to_the_server() -> None:
    hub = Hub(broker=BrokenBroker())
    said: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        said.append(event)

    await hub({"type": "lifespan"}, receive, send)
    assert said == [{"type": "lifespan.startup.failed", "message": "no broker at 127.0.0.1"}]
    assert not hub.is_running


async def test_a_hub_serves_a_second_server_after_the_first(native: bool) -> None:
    hub = Hub()
    for _ in range(2):
        async with serve(hub, native=native) as server:
            await chat(server, "/ws")
        assert len(hub) == 0


async def test_without_a_lifespan_the_first_handshake_starts_the_hub(native: bool) -> None:
    hub = Hub()
    app = Starlette(routes=[WebSocketRoute("/ws", hub)])
    async with serve(app, native=native) as server:
        assert not hub.is_running
        await chat(server, "/ws")
        assert hub.is_running
    await hub.stop()


async def test_a_cancelled_asgi_call_leaves_nothing_behind() -> None:
    """Frameworks cancel by anyio's scopes: every further await in such a call raises again."""
    hub = Hub()
    gone: list[Client] = []
    hub.on_disconnect(gone.append)
    events = asyncio.Queue[Any]()
    events.put_nowait({"type": "websocket.connect"})

    async def send(event: Any) -> None:
        await asyncio.sleep(0)

    scope = {"type": "websocket", "path": "/ws", "headers": []}
    async with anyio.create_task_group() as calls:
        calls.start_soon(hub, scope, events.get, send)
        await until(lambda: len(hub) == 1)
        calls.cancel_scope.cancel()
    assert len(hub) == 0
    assert len(gone) == 1
    async with asyncio.timeout(hub.settings.shutdown_timeout_s / 5):
        await hub.stop()


async def call(hub: Hub, first: str, **scope: Any) -> list[Any]:
    """Call the hub for a socket whose first event is `first`; return what it sent."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": first}

    async def send(event: Any) -> None:
        sent.append(event)

    await hub({"type": "websocket", "path": "/ws", "headers": [], **scope}, receive, send)
    return sent


async def test_a_server_without_denial_responses_is_told_to_close() -> None:
    """It answers the handshake with a bare 403; daphne is one."""
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    sent = await call(hub, "websocket.connect")
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "unauthorized"}]
    await hub.stop()


async def test_a_socket_that_is_gone_already_gets_nothing() -> None:
    hub = Hub()
    assert await call(hub, "websocket.disconnect") == []
    assert hub.stats()["register"] == 0


async def test_a_native_socket_that_broke_while_it_was_accepted_is_nobody() -> None:
    class Broken:
        def stop_deadline(self, shutdown_timeout_s: float) -> None: ...

        def claim(self, *, deflate: bool) -> None: ...

        def detach(self, report: Callable[[BaseException], None]) -> None: ...

    hub = Hub()
    sent = await call(hub, "websocket.connect", extensions={"hubbub": {"socket": Broken()}})
    assert [event["type"] for event in sent] == ["websocket.accept"]
    assert nobody_came(hub)
    await hub.stop()


async def test_other_scopes_are_an_error() -> None:
    async def nothing(*arguments: Any) -> Any:
        raise AssertionError("nobody calls this")

    with pytest.raises(RuntimeError, match="'telnet'"):
        await Hub()({"type": "telnet"}, nothing, nothing)


async def test_a_router_without_fastapi_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hubbub.asgi.fastapi", None)
    with pytest.raises(MissingExtra, match="pip install"):
        Hub().router("/ws")


# Starlette's TestClient


def starlette_app(hub: Hub) -> Starlette:
    return Starlette(
        routes=[WebSocketRoute("/ws", hub), Route("/ws", hub), Route("/clients", clients)],
        lifespan=hub.lifespan,
    )


@pytest.mark.timeout(8)
def test_the_test_client_talks_to_the_hub() -> None:
    """And nothing hangs at its exit, as it would if the hub waited for clients that are gone."""
    hub = Hub()

    @hub.on_message
    async def said(client: Client, message: str) -> None:
        await asyncio.sleep(0)
        hub.broadcast(f"{client.user}: {message}")

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        return handshake.query.get("user")

    with TestClient(starlette_app(hub)) as web:
        with (
            web.websocket_connect("/ws?user=ann") as ann,
            web.websocket_connect("/ws?user=bob") as bob,
        ):
            ann.send_text("hello")
            assert [ann.receive_text(), bob.receive_text()] == ["ann: hello", "ann: hello"]
            hub.broadcast({"from": "another thread"})
            assert [s.receive_json() for s in (ann, bob)] == [{"from": "another thread"}] * 2
            assert web.get("/clients").json() == {"clients": 2}
            hub.broadcast(b"\x00\xff")
            assert bob.receive_bytes() == b"\x00\xff"
        assert len(hub) == 0
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            web.websocket_connect("/ws"),
        ):
            raise AssertionError("a stranger came in")
        assert caught.value.status_code == 401
        assert caught.value.json() == {"error": "Unauthorized", "code": "unauthorized"}
        assert web.get("/ws").status_code == 401
        assert web.get("/ws?user=ann").status_code == 426


def test_the_test_client_sees_the_server_close() -> None:
    hub = Hub()

    @hub.on_message
    def leave(client: Client, message: str) -> None:
        client.close(4321, message)

    with TestClient(starlette_app(hub)) as web, web.websocket_connect("/ws") as socket:
        socket.send_text("see you")
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
        assert (caught.value.code, caught.value.reason) == (4321, "see you")


def test_the_test_client_ends_with_sockets_open() -> None:
    """The application's lifespan ends first, and sends a last message; nothing hangs."""
    hub = Hub()
    web = TestClient(starlette_app(hub))
    with contextlib.ExitStack() as stack:
        stack.enter_context(web)
        socket = stack.enter_context(web.websocket_connect("/ws"))
        hub.broadcast("before the close")
        assert socket.receive_text() == "before the close"
        assert web.portal is not None
        web.portal.call(hub.stop)
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()
        assert caught.value.code == 1012
    assert len(hub) == 0
    assert not hub.is_running


def test_without_a_context_a_second_socket_in_another_loop_is_a_503() -> None:
    """Each socket of a bare TestClient runs in a loop of its own; a hub belongs to one."""
    hub = Hub()
    web = TestClient(Starlette(routes=[WebSocketRoute("/ws", hub)]))
    with web.websocket_connect("/ws") as one:
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            web.websocket_connect("/ws"),
        ):
            raise AssertionError("two loops, one hub")
        assert caught.value.status_code == 503
        assert caught.value.json()["code"] == "not_running"
        assert "TestClient" in caught.value.json()["error"]
        one.send_text("the first lives on")
        assert one.receive_text() == "the first lives on"
    with web.websocket_connect("/ws") as later:
        later.send_text("a loop that ended binds nobody")
        assert later.receive_text() == "a loop that ended binds nobody"


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


# Heads


def big_heads() -> dict[str, list[tuple[bytes, bytes]]]:
    return {
        "many": [(b"a", b"")] * (MAX_HEADERS + 1),
        "long": [(b"cookie", b"x" * MAX_HEAD_BYTES)],
        "the most": [(b"a", b"")] * MAX_HEADERS,
    }


@pytest.mark.parametrize("name", ["many", "long"])
def test_fault_08_a_head_that_is_too_large_is_refused_before_it_is_read(name: str) -> None:
    class Unread(list[tuple[bytes, bytes]]):
        looks = 0

        def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
            type(self).looks += 1
            return super().__iter__()

    headers = Unread(big_heads()[name] * 1000)
    with pytest.raises(Refused) as caught:
        read_handshake({"path": "/ws", "headers": headers})
    assert (caught.value.status, caught.value.code) == (431, "head_too_large")
    assert Unread.looks == 0, "their number alone is enough"


def test_repeated_headers_are_joined() -> None:
    pairs = [(b"x", b"1"), (b"cookie", b"a=1"), (b"X", b"2"), (b"cookie", b"b=2"), (b"y", b"")]
    handshake = read_handshake({"path": "/ws", "headers": pairs})
    assert handshake.headers == {"x": "1, 2", "cookie": "a=1; b=2", "y": ""}


@pytest.mark.parametrize("http", ["h11", "httptools", HttpProtocol], ids=str)
async def test_fault_08_a_request_is_read_once_and_a_huge_one_not_at_all(
    native: bool, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    def reading(scope: Any) -> Handshake:
        reads.append(len(scope["headers"]))
        return read_handshake(scope)

    monkeypatch.setattr(endpoint_module, "read_handshake", reading)
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    config: dict[str, Any] = {"http": http, "h11_max_incomplete_event_size": 2**22}
    async with serve(hub, native=native, **config) as server:
        await get(server)
        await get(server, "/ws/hubbub.js")
        with pytest.raises(InvalidStatus):
            await server.connect()
        assert len(reads) == 3
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**20)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 10_000 + b"\r\n")
        assert b" 431 " in await asyncio.wait_for(reader.readline(), PATIENCE_S)
        writer.transport.abort()
        await asyncio.sleep(0)
    assert hub.stats()["refused_gets"] == {"unauthorized": 1, "head_too_large": 1}


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


async def test_who_will_say_later_who_it_is_has_a_place_before_it_is_accepted() -> None:
    from array_dialect import ArrayDialect
    from hubbub.asgi.endpoint import Endpoint

    hub = Hub(max_clients=1)
    await hub.start()
    endpoint = Endpoint(hub, ArrayDialect())
    gate = asyncio.Event()

    async def shake(log: list[str]) -> None:
        async def receive() -> dict[str, Any]:
            if log:
                await asyncio.sleep(30)
            return {"type": "websocket.connect"}

        async def send(event: Any) -> None:
            log.append(event["type"])
            if event["type"] == "websocket.accept":
                await gate.wait()

        scope = {
            "type": "websocket",
            "path": "/ws",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "extensions": {"websocket.http.response": {}},
        }
        await endpoint(scope, receive, send)

    logs: list[list[str]] = [[], []]
    tasks = [asyncio.create_task(shake(log)) for log in logs]
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.sleep(0.01)
    assert logs == [
        ["websocket.accept"],
        ["websocket.http.response.start", "websocket.http.response.body"],
    ]
    await hub.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
