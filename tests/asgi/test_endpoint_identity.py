"""Endpoint: who asks for a socket, and what an authenticate handler may answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from websockets.typing import Subprotocol

from asgi.handshakes import fail, nobody_came, refusal
from hubbub import (
    Client,
    Handshake,
    Hub,
    Identity,
    Refused,
)
from serving import serve, take, until

pytestmark = pytest.mark.anyio

Authenticate = Callable[[Handshake], Any]


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
