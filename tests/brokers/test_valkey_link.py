"""Link: one server asks, and is asked nothing while it is away."""

from __future__ import annotations

from typing import Any

import pytest

from hubbub import BrokerUnavailable
from hubbub.brokers.valkey_link import Handlers, Link, fresh
from hubbub.brokers.valkey_names import Names
from started_hub import until
from valkey_server import connections, fresh_prefix, hurry

pytestmark = pytest.mark.anyio


async def echo(link: Link) -> Any:
    return await link.connections.client.echo("1")


async def test_it_is_asked_while_it_is_there_and_forgetting_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    said: list[str] = []
    handlers = Handlers(
        lambda channel, data: said.append("take"),
        lambda link: said.append("back"),
        lambda: said.append("forgot"),
        lambda room: None,
        lambda channels: None,
        lambda channels: None,
    )
    names = Names(fresh_prefix())
    link = Link(connections(), names, handlers)
    with pytest.raises(BrokerUnavailable, match="the broker is away"):
        await link.answer(echo)
    await link.start([names.control])
    assert await link.answer(echo) == b"1"
    await until(lambda: link._mark is not None)
    await link.connections.client.delete(names.mark)
    await until(lambda: said == ["forgot"])
    link.feed.fail(RuntimeError("on purpose"))
    await until(lambda: said == ["forgot", "back"])
    assert await link.answer(echo) == b"1"
    await link.stop()
    with pytest.raises(BrokerUnavailable):
        await link.answer(echo)


def test_a_fresh_name_is_no_other() -> None:
    assert len({fresh() for _ in range(100)}) == 100
