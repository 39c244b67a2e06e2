"""Access: who a client is and what it may do, and what becomes of what handlers raise."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from hubbub import BrokerUnavailable, Client, CommandError, Handshake, Hub, Identity, Refused
from hubbub.hub.core import core_of
from hubbub.testing import FakeClock, connect, set_clock

pytestmark = pytest.mark.anyio

HANDSHAKE = Handshake("/ws", {})


async def test_without_a_handler_everybody_is_anonymous() -> None:
    assert await core_of(Hub()).access.identify(HANDSHAKE) == Identity()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("ann", Identity(user="ann")), (Identity("bob"), Identity("bob")), (None, 401), (False, 401)],
    ids=str,
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_answer_is_an_identity_or_a_refusal(
    answer: Any, expected: Any, is_async: bool
) -> None:
    hub = Hub()
    if is_async:

        @hub.authenticate
        async def later(handshake: Handshake) -> Any:
            await asyncio.sleep(0)
            return answer

    else:

        @hub.authenticate
        def now(handshake: Handshake) -> Any:
            return answer

    if isinstance(expected, Identity):
        assert await core_of(hub).access.identify(HANDSHAKE) == expected
        return
    with pytest.raises(Refused) as caught:
        await core_of(hub).access.identify(HANDSHAKE)
    assert caught.value.status == expected


@pytest.mark.parametrize(
    ("error", "status"),
    [(LookupError("secret"), 500), (Refused(418, "teapot"), 418), (asyncio.CancelledError(), 500)],
    ids=["failure", "refusal", "a cancelled future"],
)
async def test_what_a_handler_raises_becomes_a_refusal(
    error: BaseException, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub()

    @hub.authenticate
    def broken(handshake: Handshake) -> str:
        raise error

    with pytest.raises(Refused) as caught:
        await core_of(hub).access.identify(HANDSHAKE)
    assert caught.value.status == status
    assert ("the authenticate handler failed" in caplog.text) == (status == 500)


async def test_an_identity_with_too_many_rooms_is_a_403_and_no_failure_of_the_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub(max_rooms_per_client=2)
    hub.authenticate(lambda handshake: Identity(rooms=("a", "b", "c")))
    with pytest.raises(Refused) as caught:
        await core_of(hub).access.identify(HANDSHAKE)
    assert (caught.value.status, caught.value.code) == (403, "too_many_rooms")
    assert caplog.records == []
    hub = Hub(max_rooms_per_client=2)
    hub.authenticate(lambda handshake: Identity(rooms=("a", "b", "b")))
    assert (await core_of(hub).access.identify(HANDSHAKE)).rooms == ("a", "b", "b")


async def test_a_handler_that_asks_the_broker_in_vain_is_a_503_and_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    set_clock(hub, FakeClock())

    @hub.authenticate
    async def asks(handshake: Handshake) -> str:
        raise BrokerUnavailable("the broker is away")

    for _ in range(50):
        with pytest.raises(Refused) as caught:
            await core_of(hub).access.identify(HANDSHAKE)
        assert caught.value.status == 503
    lines = [record for record in caplog.records if record.name == "hubbub"]
    assert 0 < len(lines) < 50
    assert lines[0].levelno == logging.WARNING
    assert lines[0].exc_info is None
    said = "the authenticate handler failed: the broker is away; answered with 503"
    assert lines[0].getMessage() == said


async def test_the_command_that_connects_may_carry_the_token() -> None:
    handshake = Handshake(
        "/ws", {"authorization": "Bearer old"}, connect_token="new", data={"a": 1}
    )
    assert (handshake.token, handshake.data) == ("new", {"a": 1})
    assert Handshake("/ws", {"authorization": "Bearer old"}).token == "old"
    assert "new" not in repr(handshake)


async def test_clients_may_join_and_not_publish_where_nobody_says_otherwise() -> None:
    hub = Hub()
    await hub.start()
    client, access = connect(hub).client, core_of(hub).access
    for action in ("join", "history", "presence"):
        await access.check(client, action, "red")
    with pytest.raises(CommandError, match="publish is not allowed in this room"):
        await access.check(client, "publish", "red")
    await hub.stop()


@pytest.mark.parametrize("answer", [False, None, 0, "yes", 1], ids=repr)
async def test_only_true_allows(answer: Any) -> None:
    hub = Hub()
    hub.authorize(lambda client, action, room: answer)
    await hub.start()
    client = connect(hub).client
    with pytest.raises(CommandError, match="join is not allowed"):
        await client.subscribe("red")
    assert client.rooms == frozenset()
    await hub.stop()


async def test_a_client_that_is_joining_may_leave_go_or_be_put_in_before_it_is_in() -> None:
    hub = Hub(max_rooms_per_client=2)
    gate = asyncio.Event()

    @hub.authorize
    async def may(client: Client, action: str, room: str) -> bool:
        await gate.wait()
        return True

    await hub.start()
    leaves, goes, joins = [connect(hub).client for _ in range(3)]
    tasks = [asyncio.create_task(client.subscribe("red")) for client in (leaves, goes, joins)]
    await asyncio.sleep(0)
    with pytest.raises(CommandError, match="joining the room already"):
        await joins.subscribe("red")
    joins.join("blue")
    with pytest.raises(CommandError, match="2 rooms at most"):
        joins.join("green")
    leaves.leave("red")
    goes.close()
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(result, "code", None) for result in results] == ["left", "left", None]
    assert hub.rooms == {"red": 1, "blue": 1}
    assert joins.rooms == {"red", "blue"}
    assert (await joins.subscribe("red")).room == "red"
    await hub.stop()


async def test_a_client_that_is_gone_subscribes_to_nothing() -> None:
    hub = Hub()
    await hub.start()
    client = connect(hub).client
    client.close()
    with pytest.raises(CommandError, match="left"):
        await client.subscribe("red")
    await hub.stop()


async def test_who_leaves_and_subscribes_again_is_in_by_the_second_try_alone() -> None:
    hub = Hub()
    gates = [asyncio.Event(), asyncio.Event()]
    left = iter(gates)

    @hub.authorize
    async def may(client: Client, action: str, room: str) -> bool:
        await next(left).wait()
        return True

    await hub.start()
    client = connect(hub).client
    first = asyncio.create_task(client.subscribe("red"))
    await asyncio.sleep(0)
    client.leave("red")
    second = asyncio.create_task(client.subscribe("red"))
    await asyncio.sleep(0)
    gates[0].set()
    with pytest.raises(CommandError, match="left"):
        await first
    assert client.rooms == frozenset()
    gates[1].set()
    assert (await second).room == "red"
    assert client.rooms == {"red"}
    await hub.stop()
