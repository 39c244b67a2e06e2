"""Runtime: one line says what a hub runs on, and `stats()` says the same."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub import test_workers
from hubbub import (
    Broker,
    HttpProtocol,
    Hub,
    MemoryBroker,
    Protocol,
    Publication,
    Receipt,
    RoomRules,
)
from hubbub.brokers.broker import Node
from hubbub.errors import SettingsError
from hubbub.hub import workers
from hubbub.hub.core import core_of
from hubbub.hub.runtime import (
    PARTS,
    RELAYS,
    Runtime,
    Server,
    broker_name,
    changed_settings,
    compiled_parts,
    find_server,
)
from hubbub.hub.workers import Roll, WorkerWatch
from hubbub.settings import Settings
from serving import held_port, nothing, serve, until

pytestmark = pytest.mark.anyio

STARTED = "the hub has started: "
FASTER = "The native transport is about twice as fast: "


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "hubbub"):
        yield


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the hub has said about what it runs on, in order."""
    found = [record for record in caplog.records if record.name == "hubbub"]
    assert {record.levelno for record in found} <= {logging.INFO}
    texts = [record.getMessage() for record in found]
    return [text for text in texts if text.startswith(STARTED) or "transport" in text]


# Under uvicorn


@pytest.mark.parametrize(
    ("http", "name"), [("h11", "h11"), ("httptools", "httptools"), (HttpProtocol, None)]
)
@pytest.mark.parametrize("native", [True, False], ids=["native", "portable"])
async def test_fault_31_the_start_and_the_stats_say_what_the_hub_runs_on(
    native: bool, http: Any, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(max_clients=50, origins=["https://a.example", "https://b.example"])
    async with serve(hub.mount(nothing), native=native, http=http, loop="asyncio"):
        [line] = lines(caplog)
        stats = hub.stats()
    transport = "native" if native else "portable"
    name = name or "hubbub:HttpProtocol"
    described = f"{name} (no deadline for a request's head; hubbub:HttpProtocol has one)"
    described = name if name == "hubbub:HttpProtocol" else described
    parts = ", ".join(stats["compiled"])
    assert line.split(". ")[0] == (
        f"{STARTED}transport {transport}; server uvicorn; HTTP class {described}; event loop asyncio; "
        f"compiled parts of {parts}; broker memory; workers seen 1; {RELAYS}; settings: "
        "origins=https://a.example,https://b.example max_clients=50"
    )
    assert (FASTER in line) is not native
    assert {"httptools", "msgspec", "websockets"} <= set(stats["compiled"])
    del stats["compiled"]
    assert (
        stats.items()
        >= {
            "transport": transport,
            "server": "uvicorn",
            "http": name,
            "loop": "asyncio",
            "broker": "memory",
            "workers": 1,
            "settings": {
                "origins": ("https://a.example", "https://b.example"),
                "max_clients": 50,
            },
        }.items()
    )


async def test_the_start_says_whether_what_a_client_sends_goes_to_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled = Hub()
    handled.on_message(lambda client, message: None)
    hubs = Hub(), handled, Hub(room_rules=[RoomRules("a", history=1)])
    for hub in hubs:
        await hub.start()
        await hub.stop()
    assert [RELAYS in line for line in lines(caplog)] == [True, False, False]


@pytest.mark.parametrize("native", [True, False], ids=["native", "portable"])
@pytest.mark.parametrize("lifespan", ["on", "off"])
async def test_fault_31_clients_do_not_make_it_say_more_than_it_must(
    native: bool, lifespan: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a lifespan the first handshake starts the hub; its server is seen all the same."""
    hub = Hub()
    async with serve(hub.mount(nothing), native=native, lifespan=lifespan) as served:
        assert len(lines(caplog)) == (lifespan == "on")
        for _ in range(2):
            async with served.connect():
                await until(lambda: len(hub) == 1)
            await until(lambda: len(hub) == 0)
        assert len(lines(caplog)) == 1
        assert hub.stats()["transport"] == ("native" if native else "portable")
    await hub.stop()


async def test_fault_31_what_a_handshake_comes_by_is_believed_more_than_the_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A middleware that copies scopes may lose what the native transport needs."""
    hub = Hub()
    mounted = hub.mount(nothing)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope = {**scope, "extensions": {}} if scope["type"] == "websocket" else scope
        await mounted(scope, receive, send)

    async with serve(app, native=True) as served, served.connect():
        await until(lambda: len(hub) == 1)
        assert hub.stats()["transport"] == "portable"
        first, second = lines(caplog)
        assert first.startswith(f"{STARTED}transport native")
        assert second.startswith("clients come by the portable transport")


async def test_fault_31_two_servers_in_one_process_are_told_apart() -> None:
    native, portable = Hub(), Hub()
    async with (
        serve(native.mount(nothing), native=True),
        serve(portable.mount(nothing), native=False),
    ):
        assert native.stats()["transport"] == "native"
        assert portable.stats()["transport"] == "portable"


def test_fault_31_without_a_known_server_the_first_client_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = Hub()
    with TestClient(hub.mount(nothing)) as client:
        assert hub.stats()["transport"] is None
        [first] = lines(caplog)
        assert first.startswith(f"{STARTED}transport not known before the first client; event loop")
        with client.websocket_connect("/ws"):
            assert hub.stats()["transport"] == "portable"
        assert lines(caplog)[1:] == ["clients come by the portable transport"]
    assert hub.stats()["transport"] is None


def test_before_the_start_little_is_known() -> None:
    stats = Hub(max_clients=5).stats()
    assert (stats["transport"], stats["loop"], stats["compiled"]) == (None, None, [])
    assert (stats["broker"], stats["settings"]) == ("memory", {"max_clients": 5})


async def test_each_start_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    for count in (1, 2):
        await asyncio.gather(hub.start(), hub.start())
        await hub.start()
        assert len(lines(caplog)) == count
        await hub.stop()


def test_a_hub_whose_loop_died_says_it_again(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    for count in (1, 2):
        asyncio.run(hub.start())
        assert len(lines(caplog)) == count


# As a stranger sees it


SHOWN: dict[str, tuple[Callable[[str, int], list[str]], str]] = {
    "uvicorn": (
        lambda port, count: ["uvicorn", "workers_app:app", "--port", port],
        r"^INFO: +the hub has started: transport portable; .* uvicorn workers_app:app --ws hubbub:",
    ),
    "fastapi-run": (
        lambda port, count: ["fastapi", "run", "workers_fastapi.py", "--port", port],
        r"INFO\W+the hub has started: transport portable; .*: hubbub serve workers_fastapi:app, or",
    ),
    "hubbub-serve": (
        lambda port, count: ["hubbub", "serve", "workers_app", "--port", port],
        r"^INFO: +the hub has started: transport native; .*settings: shutdown_timeout_s=1$",
    ),
    "gunicorn-portable": (
        test_workers.gunicorn("uvicorn_worker.UvicornWorker"),
        r"\[INFO\] the hub has started: transport portable; .* a worker class of uvicorn's with CONF",
    ),
    "gunicorn-native": (
        test_workers.gunicorn("workers_gunicorn.Worker"),
        r"\[INFO\] the hub has started: transport native; .*; HTTP class hubbub:HttpProtocol; ",
    ),
    "granian": (
        lambda port, count: [
            *("granian", "--interface", "asgi", "--port", port),
            "workers_app:app",
        ],
        r"^\[INFO\] the hub has started: transport portable; server granian; .*hubbub serve APP",
    ),
}
"""How a server is started, and the line that it shows to who has configured no logging."""


@pytest.mark.parametrize("name", SHOWN)
def test_fault_31_who_configures_no_logging_sees_it_too(name: str, tmp_path: Path) -> None:
    make, pattern = SHOWN[name]
    with held_port() as number:
        port = str(number)
        command = test_workers.python(*make(port, 1))
        with test_workers.running(command, tmp_path, port, {"WORKERS_APP_LOG": ""}) as server:
            server.until(
                lambda: re.search(pattern, server.output.read_text(), re.M) is not None, pattern
            )
            assert server.output.read_text().count(STARTED) == 1


def test_an_application_that_configured_its_logging_is_obeyed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.clear()
    logging.getLogger("hubbub").setLevel(logging.WARNING)
    asyncio.run(Hub().start())
    assert lines(caplog) == []


# What is seen


def test_without_a_server_none_is_found() -> None:
    assert find_server() == Server()


@pytest.mark.parametrize("package", ["hypercorn", "granian", "daphne", "gunicorn"])
def test_other_servers_have_the_portable_transport(package: str) -> None:
    scope = {"__name__": f"{package}.lifespan", "find_server": find_server}
    exec("found = find_server()", scope)
    found = scope["found"]
    assert found == Server(package, "portable", is_in_gunicorn=package == "gunicorn")


class Config:
    """What a uvicorn of another time might have."""

    loaded = True
    app = staticmethod(nothing)

    def __init__(self, ws: Any, http: Any) -> None:
        self.ws_protocol_class = ws
        self.http_protocol_class = http


@pytest.mark.parametrize(
    ("ws", "http", "transport", "name"),
    [
        (Protocol, HttpProtocol, "native", "hubbub:HttpProtocol"),
        (type("Mine", (Protocol,), {}), None, "native", None),
        (None, None, None, None),
        (lambda **keywords: None, asyncio.Protocol, "portable", "asyncio:Protocol"),
    ],
)
def test_what_uvicorn_was_told_is_read_from_its_configuration(
    ws: Any, http: Any, transport: str | None, name: str | None
) -> None:
    scope = {"__name__": "uvicorn.lifespan.on", "find_server": find_server}
    exec("def main(self):\n return find_server()", scope)
    holder = type("Holder", (), {"config": Config(ws, http)})()
    main: Any = scope["main"]
    assert main(holder) == Server("uvicorn", transport, name)
    assert main(object()) == Server("uvicorn"), "no configuration is to be found"


def test_compiled_parts_are_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_parts(load=True) == list(PARTS)
    monkeypatch.delitem(sys.modules, "uvloop.loop")
    assert compiled_parts() == ["httptools", "msgspec", "websockets"]
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    assert "websockets" not in compiled_parts(load=True)
    assert "websockets" not in compiled_parts()


class Postal(MemoryBroker):
    """A broker that connects processes."""

    async def start(self, node: Node) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    def publish(self, publication: Publication) -> Receipt:
        """Reach nobody."""
        return Receipt(0)


def test_a_broker_of_ones_own_is_named_by_its_class() -> None:
    assert broker_name(MemoryBroker()) == "memory"
    assert broker_name(Postal()) == "Postal"


def test_the_settings_that_differ() -> None:
    assert changed_settings(Settings()) == {}
    assert changed_settings(Settings(max_message_bytes=None, slow_policy="latest")) == {
        "max_message_bytes": None,
        "slow_policy": "latest",
    }


async def test_rules_are_shown_as_json_can_say_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hubbub")
    hub = Hub(room_rules=[RoomRules("a", history=3)])
    await hub.start()
    assert json.loads(json.dumps(hub.stats()))["settings"] == {
        "room_rules": [{"pattern": "a", "history": 3}]
    }
    await hub.stop()
    assert 'room_rules=[{"pattern": "a", "history": 3}]' in caplog.text


@pytest.mark.parametrize(
    ("settings", "is_memory", "warns"),
    [
        ({}, True, True),
        ({"workers_ok": True}, True, False),
        ({"workers_ok": "refuse"}, True, True),
        ({}, False, False),
    ],
)
async def test_workers_are_a_warning_for_a_broker_that_does_not_connect_them(
    settings: dict[str, Any], is_memory: bool, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker: Broker = MemoryBroker() if is_memory else Postal()
    runtime = Runtime(Settings(**settings), broker, asyncio.get_running_loop())
    runtime._watch._tell(3)
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == warns
    assert not warns or "one of 3 workers" in warnings[0]


@pytest.mark.parametrize(
    ("ok", "is_memory", "count", "refuses"),
    [
        ("refuse", True, 2, True),
        ("refuse", True, 1, False),
        ("refuse", False, 2, False),
        (True, True, 2, False),
        (False, True, 2, False),
    ],
)
async def test_workers_are_refused_where_the_settings_say_so_and_nothing_connects_them(
    ok: Any, is_memory: bool, count: int, refuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def settled(watch: WorkerWatch) -> int:
        return count

    monkeypatch.setattr(WorkerWatch, "settled", settled)
    hub = Hub(workers_ok=ok, broker=MemoryBroker() if is_memory else Postal())
    if refuses:
        with pytest.raises(SettingsError, match=r"workers_ok = 'refuse' \(keyword\): .* 2 workers"):
            await hub.start()
        assert not hub.is_running
        monkeypatch.undo()
    await hub.start()
    await hub.stop()


async def test_a_hub_that_is_refused_is_no_worker_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "FIRST_LOOK_S", 0.001)
    monkeypatch.setattr(Roll, "look", lambda roll: 2)
    before = set(workers.roll._owners)
    with pytest.raises(SettingsError):
        await Hub(workers_ok="refuse").start()
    assert workers.roll._owners == before


async def test_a_hub_that_shuts_down_is_no_worker_to_others_any_more() -> None:
    hub = Hub()
    await hub.start()
    runtime = core_of(hub).lifecycle.runtime
    assert runtime is not None
    owners = runtime._watch._roll._owners
    before = len(owners)
    closing = core_of(hub).lifecycle.shut_down()
    assert len(owners) == before - 1
    await closing
    await hub.stop()


def test_a_hub_whose_loop_ended_without_a_stop_is_one_worker_and_not_two() -> None:
    hub = Hub()
    asyncio.run(hub.start())
    runtime = core_of(hub).lifecycle.runtime
    assert runtime is not None
    first, owners = (
        runtime._watch,
        runtime._watch._roll._owners,
    )
    assert id(first) in owners

    async def again() -> None:
        await hub.start()
        assert id(first) not in owners
        await hub.stop()

    asyncio.run(again())
