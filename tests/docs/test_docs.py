"""The documentation: its examples run and do what the text says, its links lead somewhere.

A Python block whose info string has a file name (```python chat.py) is a module that works alone;
one whose name begins with test_ is run by pytest beside the modules of its page. A block without a
name is executed as it stands.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread
import click
import jwt
import pytest
import uvicorn
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

import gen_api
import hubbub
from hubbub import Close, Hub, HubNotRunning, cli
from hubbub.core import core_of
from hubbub.settings import rows, shown
from hubbub.testing import FakeClock, advance_time, connect, set_clock, settle
from matrix_worker import HubWorker
from places import ROOT

PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")], key=lambda path: path.as_posix()
)
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]


class Block(NamedTuple):
    """A fenced block: its info string's words, its text, the line it begins at."""

    info: list[str]
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        yield Block(found[1].split(), found[2], text[: found.start()].count("\n") + 2)


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.info[:1] == ["python"]]


def named(page: str) -> dict[str, str]:
    """Return the files that a page shows, by name."""
    shown = [block for block in python_blocks(ROOT / page) if len(block.info) > 1]
    files = {block.info[1]: block.text for block in shown}
    assert len(files) == len(shown), f"{page} shows one name twice"
    return files


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that writes a file of a page to disk and imports it."""
    for row in rows():
        monkeypatch.delenv(row.env, raising=False)

    def load_file(page: str, name: str) -> ModuleType:
        path = tmp_path / name
        path.write_text(named(page)[name], encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    return load_file


def refusal(client: TestClient, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return status and body of a handshake that is refused."""
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect(url, **options),
    ):
        pass
    return refused.value.status_code, refused.value.json()


def test_readme_the_whole_chat(load: Any) -> None:
    chat = load("README.md", "chat.py")
    with TestClient(chat.app) as client, client.websocket_connect("/ws") as ann:
        ann_id = ann.receive_text().removesuffix(" joined the chat")
        with client.websocket_connect("/ws") as bob:
            bob_id = bob.receive_text().removesuffix(" joined the chat")
            assert ann.receive_text() == f"{bob_id} joined the chat"
            bob.send_text("hello")
            assert ann.receive_text() == bob.receive_text() == f"{bob_id}: hello"
        assert ann_id != bob_id


def test_s08_a_chat_announces_who_comes_and_who_goes(load: Any) -> None:
    chat = load("docs/tutorial.md", "chat.py")
    with TestClient(chat.app) as client, client.websocket_connect("/ws") as ann:
        ann.receive_text()
        with client.websocket_connect("/ws") as bob:
            announced = ann.receive_text()
            assert announced.endswith(" joined the chat")
            bob.send_text("hello")
            assert ann.receive_text().endswith(": hello")
        assert ann.receive_text() == announced.replace("joined", "left")


def test_the_tutorial_s_page(load: Any) -> None:
    page = load("docs/tutorial.md", "page.py")
    with TestClient(page.app) as client:
        html = client.get("/")
        assert 'from "/ws/hubbub.js"' in html.text
        assert client.get("/ws/hubbub.js").headers["content-type"].startswith("text/javascript")
        with client.websocket_connect("/ws") as socket:
            socket.send_text("x" * 1000)
            assert socket.receive_text().endswith(": " + "x" * 1000)


def test_the_tutorial_s_rooms(load: Any) -> None:
    rooms = load("docs/tutorial.md", "rooms.py")
    lines = [
        line for block in blocks(ROOT / "docs/tutorial.md") for line in block.text.splitlines()
    ]
    join, say, elsewhere, short = [line for line in lines if line.startswith('{"type": ')]
    with TestClient(rooms.app) as client, client.websocket_connect("/ws") as socket:
        socket.send_text(join)
        assert socket.receive_json() | {"who": ""} == {
            "type": "joined",
            "room": "red",
            "who": "",
            "members": 1,
        }
        socket.send_text(say)
        assert socket.receive_json()["text"] == "hello"
        socket.send_text(elsewhere)
        assert socket.receive_json()["code"] == "not_a_member"
        socket.send_text(short)
        assert socket.receive_json()["code"] == "invalid_message"
        assert client.get("/rooms").json() == {"red": 1}
        assert client.post("/announce/red", params={"text": "lunch"}).status_code == 200
        assert socket.receive_json() == {"type": "announcement", "room": "red", "text": "lunch"}


def test_the_tutorial_s_tokens(load: Any) -> None:
    tokens = load("docs/tutorial.md", "tokens.py")
    with TestClient(tokens.app) as client:
        answer = client.get("/ws")
        assert answer.status_code == 401
        assert answer.text in (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
        assert refusal(client, "/ws?token=wrong") == (401, answer.json())
        with client.websocket_connect("/ws?token=ann-secret") as ann:
            assert ann.receive_json()["you"] == "ann"
            assert client.post("/poke/ann").json() == {"clients": 1}
            assert ann.receive_json() == {"type": "poke"}


def test_the_tutorial_s_clock(load: Any) -> None:
    clock = load("docs/tutorial.md", "clock.py")
    with TestClient(clock.app) as client, client.websocket_connect("/ws") as socket:
        first, second = socket.receive_json(), socket.receive_json()
        assert first["type"] == "time"
        assert first["time"] < second["time"]


def test_frameworks_fastapi(load: Any) -> None:
    assert_counts(load("docs/guides/frameworks.md", "fastapi_app.py").app)


def test_frameworks_two_hubs(load: Any) -> None:
    two = load("docs/guides/frameworks.md", "two_hubs.py")
    with (
        TestClient(two.app) as client,
        client.websocket_connect("/news") as news,
        client.websocket_connect("/chat") as chat,
    ):
        assert client.post("/headlines", params={"text": "rain"}).status_code == 200
        assert news.receive_text() == "rain"
        two.chat.broadcast("only this")
        assert chat.receive_text() == "only this"


def test_fault_32_frameworks_parameters_in_the_path(load: Any) -> None:
    app = load("docs/guides/frameworks.md", "rooms_app.py").app
    url = "/api/rooms/red/ws"
    with (
        TestClient(app) as client,
        client.websocket_connect(url) as red,
        client.websocket_connect("/api/rooms/blue/ws") as blue,
    ):
        for socket, room in ((red, "red"), (blue, "blue")):
            socket.send_text("hello")
            assert socket.receive_text() == f"{room}: hello"
        assert refusal(client, "/api/rooms/black/ws")[0] == 404
        assert client.get("/api/rooms/black/ws").json() == {"detail": "There is no such room"}
        assert client.get(url).status_code == 426
        assert client.get(f"{url}/hubbub.js").status_code == 200


def test_frameworks_starlette(load: Any) -> None:
    app = load("docs/guides/frameworks.md", "starlette_app.py").app
    assert_counts(app)
    with TestClient(app, follow_redirects=False) as client:
        assert client.get("/ws").status_code == 426
        assert client.get("/ws/hubbub.js").status_code == 200


def test_frameworks_litestar(load: Any) -> None:
    assert_counts(load("docs/guides/frameworks.md", "litestar_app.py").app)


def test_frameworks_quart(load: Any) -> None:
    assert_counts(load("docs/guides/frameworks.md", "quart_app.py").app)


DJANGO_CHECK = """
from django_app import app
from starlette.testclient import TestClient

with TestClient(app) as client, client.websocket_connect("/ws") as socket:
    assert client.get("/online").json() == {"clients": 1}
    assert socket.receive_json() == {"type": "page_view", "path": "/online"}
"""


def test_frameworks_django(tmp_path: Path) -> None:
    """In a process of its own: Django is configured once in a process, and examples do it too."""
    file = tmp_path / "django_app.py"
    file.write_text(named("docs/guides/frameworks.md")[file.name], encoding="utf-8")
    assert run(["-c", DJANGO_CHECK], tmp_path) == ""


def assert_counts(app: Any) -> None:
    """An application with the hub at /ws: /online counts, and what is said is heard."""
    with TestClient(app) as client:
        assert client.get("/online").json() == {"clients": 0}
        with client.websocket_connect("/ws") as socket:
            assert_echoes(socket)
            assert client.get("/online").json() == {"clients": 1}


def assert_echoes(socket: WebSocketTestSession) -> None:
    socket.send_text("hello")
    assert socket.receive_text() == "hello"


def test_frameworks_a_route_of_one_s_own(load: Any) -> None:
    attach = load("docs/guides/frameworks.md", "attach_app.py")
    url = "/projects/moon/ws"
    with TestClient(attach.app) as client, client.websocket_connect(url) as socket:
        assert socket.receive_text() == "welcome to moon"
        assert attach.hub.rooms == {"project:moon": 1}
        assert [found.user for found in attach.hub] == ["ann"]


def test_frameworks_a_lifespan_of_one_s_own(load: Any) -> None:
    starlette = load("docs/guides/frameworks.md", "starlette_lifespan.py")
    with TestClient(starlette.app) as client, client.websocket_connect("/ws") as socket:
        assert_echoes(socket)
        assert client.app_state["greeting"] == "hello"
        assert client.app_state["hub"] is starlette.hub


def test_frameworks_no_framework(load: Any) -> None:
    app = load("docs/guides/frameworks.md", "bare.py").app
    with TestClient(app) as client, client.websocket_connect("/") as socket:
        assert_echoes(socket)


def test_authentication_by_cookie(load: Any) -> None:
    auth = load("docs/guides/authentication.md", "auth_app.py")
    with TestClient(auth.app) as client:
        body = {"error": "Log in first", "code": "unauthorized"}
        assert refusal(client, "/ws") == (401, body)
        client.cookies.set("session", "s3cr3t")
        with client.websocket_connect("/ws") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "ann (admin): hello"
        assert client.get("/ws").status_code == 426


def test_authentication_by_jwt(load: Any) -> None:
    app = load("docs/guides/authentication.md", "jwt_app.py")
    good = jwt.encode({"sub": "ann", "aud": "chat"}, app.KEY, "HS256")
    bad = jwt.encode({"sub": "ann", "aud": "shop"}, app.KEY, "HS256")
    with TestClient(app.app) as client:
        with client.websocket_connect("/ws", headers={"Authorization": f"Bearer {good}"}) as socket:
            assert_echoes(socket)
            assert [found.user for found in app.hub] == ["ann"]
        status, body = refusal(client, f"/ws?token={bad}")
        assert (status, body["code"]) == (401, "bad_token")
        assert "udience" in body["why"]


def until_s(seconds: float) -> float:
    """Return the time in so many seconds, as tokens have it: whole seconds."""
    return int(time.time() + seconds)


def test_authentication_a_token_is_renewed(load: Any) -> None:
    app = load("docs/guides/authentication.md", "renew_app.py")
    short, long, foreign = [
        jwt.encode({"sub": sub, "exp": until_s(seconds)}, app.KEY, "HS256")
        for sub, seconds in (("ann", 100), ("ann", 600), ("bob", 600))
    ]
    set_clock(app.hub, FakeClock())
    with TestClient(app.app) as client:
        assert client.portal is not None
        assert refusal(client, "/ws?token=nonsense")[1]["code"] == "bad_token"
        with (
            client.websocket_connect(f"/ws?token={short}") as ann,
            client.websocket_connect(f"/ws?token={short}") as idle,
        ):
            client.portal.call(advance_time, app.hub, 75)
            for socket in (ann, idle):
                assert socket.receive_json()["type"] == "refresh"
            for wrong, code in ((foreign, "forbidden"), ("x", "bad_token"), (None, "bad_token")):
                ann.send_json({"type": "token", "token": wrong})
                assert ann.receive_json()["code"] == code
            ann.send_json({"type": "token", "token": long})
            ann.send_json({"type": "what"})
            assert ann.receive_json()["type"] == "error", "so that the renewal has been read"
            client.portal.call(advance_time, app.hub, 75)
            with pytest.raises(WebSocketDisconnect) as caught:
                idle.receive_json()
            assert caught.value.code == 3005
            assert [found.user for found in app.hub] == ["ann"], "the one that was renewed"


def test_authentication_a_ticket_is_good_for_one_time(load: Any) -> None:
    app = load("docs/guides/authentication.md", "tickets_app.py")
    with TestClient(app.app) as client:
        assert client.post("/ticket").status_code == 401
        client.cookies.set("session", "s3cr3t")
        url = f"/ws?token={client.post('/ticket').json()['ticket']}"
        assert client.get(url).status_code == 426, "a plain GET does not use it up"
        with client.websocket_connect(url) as socket:
            assert_echoes(socket)
            assert [found.user for found in app.hub] == ["ann"]
            assert refusal(client, url)[1]["code"] == "bad_ticket"
        app.tickets["old"] = ("ann", time.monotonic() - 1)
        assert refusal(client, "/ws?token=old")[1]["code"] == "bad_ticket"
        app.forget_old_tickets()
        assert app.tickets == {}
        # Two that came at once: the second finds that it has been spent meanwhile.
        app.tickets["late"] = ("ann", time.monotonic() + 60)
        core_of(app.hub).handlers.connect.insert(0, (lambda: app.tickets.clear(), 0))
        with (
            client.websocket_connect("/ws?token=late") as socket,
            pytest.raises(WebSocketDisconnect) as caught,
        ):
            socket.receive_text()
        assert caught.value.code == 4501


def test_testing_a_cancelled_socket_is_gone_at_once() -> None:
    """TestClient cancels a socket's task through anyio, which cancels every later await in it too.

    Whoever waits before taking the client out of the books keeps it there, and the end of each test
    waits `shutdown_timeout_s` for it.
    """
    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "scheme": "ws"}
    events: list[dict[str, Any]] = [{"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        while not events:
            await anyio.sleep_forever()
        return events.pop()

    async def send(event: MutableMapping[str, Any]) -> None:
        await anyio.lowlevel.checkpoint()

    async def scenario() -> None:
        hub = Hub()
        async with hub.lifespan():
            async with anyio.create_task_group() as group:
                group.start_soon(hub, scope, receive, send)
                while not hub.client_count:
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()
            assert hub.client_count == 0
            began = time.monotonic()
        assert time.monotonic() - began < hub.settings.shutdown_timeout_s / 2

    anyio.run(scenario)


def test_slow_clients(load: Any) -> None:
    slow = load("docs/guides/slow-clients.md", "slow_app.py")
    with TestClient(slow.app) as client, client.websocket_connect("/ws") as socket:
        assert_echoes(socket)
        assert slow.hub.rooms == {"log": 1}


def test_handlers_a_stream_ends_with_its_client(load: Any) -> None:
    stream = load("docs/guides/handlers.md", "stream_app.py")
    with TestClient(stream.app) as client:
        with client.websocket_connect("/ws") as socket:
            socket.send_text("tick")
            assert [socket.receive_text() for _ in range(3)] == ["tick 0", "tick 1", "tick 2"]
        deadline = time.monotonic() + 10
        while not stream.saved and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(stream.saved) == 1
        assert stream.hub.stats()["handlers_cancelled"] == 1


def test_fault_32_deployment_the_worker_class_of_gunicorn(load: Any) -> None:
    """The one that the smoke matrix serves with is the one that the page shows."""
    shown = load("docs/guides/deployment.md", "hub_worker.py").HubWorker
    assert shown.CONFIG_KWARGS == HubWorker.CONFIG_KWARGS
    assert shown.__bases__ == HubWorker.__bases__


def in_a_loop_of_its_own(call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    asyncio.run(call())


def test_fault_32_design_names_the_verbs_that_any_thread_may_call() -> None:
    """Each of them works from a thread; the one that waits for a receipt says where it belongs."""
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    row = next(line for line in design.splitlines() if line.startswith("| threads |"))
    anywhere, _, rest = row.partition("may be called from any thread")
    names = re.findall(r"`(\w+)`", anywhere)
    assert names == ["broadcast", "send", "close"]
    assert re.findall(r"`(\w+)`", rest) == ["publish", "HubNotRunning"]

    async def scenario() -> None:
        hub = Hub()
        async with hub.lifespan():
            peer = connect(hub, user="ann")
            hub.room("red").broadcast("nobody")
            peer.client.join("red")
            verbs: dict[str, list[Callable[[], object]]] = {
                "broadcast": [
                    lambda: hub.broadcast("1"),
                    lambda: hub.room("red").broadcast("2"),
                    lambda: hub.everybody.broadcast("3"),
                ],
                "send": [lambda: hub.to_user("ann").send("4"), lambda: peer.client.send("5")],
                "close": [lambda: peer.client.close(4000, "enough")],
            }
            for name in names:
                for call in verbs[name]:
                    await anyio.to_thread.run_sync(call)
            receipts: list[Callable[[], Coroutine[Any, Any, object]]] = [
                lambda: hub.publish("red", "x"),
                lambda: hub.room("red").publish("x"),
                lambda: hub.everybody.publish("x"),
            ]
            for publish in receipts:
                with pytest.raises(HubNotRunning, match="event loop"):
                    await anyio.to_thread.run_sync(in_a_loop_of_its_own, publish)
            await settle(hub)
            assert peer.received == ["1", "2", "3", "4", "5"]
            assert peer.closed == Close(4000, "enough", by_server=True)

    anyio.run(scenario)


def test_deployment_stats(load: Any) -> None:
    stats = load("docs/guides/deployment.md", "stats_app.py")
    with TestClient(stats.app) as client, client.websocket_connect("/ws"):
        assert client.get("/internal/stats").json()["clients"] == 1
        assert client.get("/healthz").json() == {"ok": True, "clients": 1}


def test_deployment_notify(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notify = load("docs/guides/deployment.md", "notify_app.py")
    monkeypatch.setenv("NOTIFY_SECRET", "open sesame")
    url = "/internal/notify?text=hello"
    with TestClient(notify.app) as client, client.websocket_connect("/ws") as socket:
        assert client.post(url).status_code == 401
        assert client.post(url, headers={"Authorization": "Bearer wrong"}).status_code == 401
        right = client.post(url, headers={"Authorization": "Bearer open sesame"})
        assert right.status_code == 200
        assert socket.receive_json() == {"type": "notice", "text": "hello"}
    with pytest.raises(HubNotRunning):
        notify.hub.broadcast("from a shell")


@pytest.mark.parametrize("page", [page for page in IDS if any("test_" in f for f in named(page))])
def test_the_tests_of_a_page_pass(page: str, tmp_path: Path) -> None:
    for name, text in named(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert " passed" in run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "."], tmp_path)


def run(arguments: list[str], folder: Path) -> str:
    """Run Python in a folder without the hub's environment variables; return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HUBBUB_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{name}:{block.line}")
        for page, name in zip(PAGES, IDS, strict=True)
        for block in python_blocks(page)
        if len(block.info) == 1
    ],
)
def test_a_block_without_a_name_runs(page: Path, block: Block) -> None:
    namespace: dict[str, Any] = {"__name__": "example"}
    code = compile(block.text, f"{page.name}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert not code.co_flags & 0x80, "a block that awaits needs a file name and a test"
    exec(code, namespace)


def test_every_example_with_a_name_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for name in IDS:
        for file in set(named(name)) - {"django_app.py"}:
            is_test = file.startswith("test_") or f"test_{file}" in named(name)
            assert is_test or f'load("{name}", "{file}")' in source, f"{name}: {file}"


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the page and the arguments of each command line of a program in a block that is no code."""
    for page, name in zip(PAGES, IDS, strict=True):
        for block in blocks(page):
            if block.info[:1] not in ([], ["sh"]):
                continue
            for line in block.text.splitlines():
                # Where it is shown with what it answers, the line begins like a shell's.
                command = re.split(r"\s#\s", line.removeprefix("$ ").rpartition(" | ")[2])[0]
                if command.split()[:1] == [program] and "…" not in command:
                    yield name, shlex.split(command)[1:]


def test_every_command_line_of_hubbub_is_one() -> None:
    """It names a command that there is, and options that it takes."""
    found = list(commands("hubbub"))
    assert len(found) > 15
    for page, arguments in found:
        command = cli.main.get_command(click.Context(cli.main), arguments[0])
        assert command is not None, f"{page}: hubbub {arguments}"
        try:
            command.make_context(arguments[0], arguments[1:])
        except click.UsageError as error:
            pytest.fail(f"{page}: hubbub {arguments}: {error}")


def test_every_command_line_of_uvicorn_is_one() -> None:
    found = list(commands("uvicorn"))
    assert len(found) > 2
    for page, arguments in found:
        try:
            context = uvicorn.main.make_context("uvicorn", arguments)
        except click.UsageError as error:
            pytest.fail(f"{page}: uvicorn {arguments}: {error}")
        assert context.params["ws"] == "hubbub:Protocol", f"{page}: {arguments}"


def targets(page: Path) -> Iterator[str]:
    """Yield the targets of all links and images, outside code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    for found in re.finditer(r"\]\(([^)\s]+)\)", text):
        yield found[1]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        assert ROOT in there.parents, f"{target} leaves the repository"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_json_in_the_text_is_json(page: Path) -> None:
    for block in blocks(page):
        if block.info[:1] == ["json"]:
            json.loads(block.text)


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in targets(index)}
    assert set((ROOT / "docs").rglob("*.md")) - {index} <= linked


def test_no_page_names_a_path_of_somebody_s_machine() -> None:
    paths = re.compile(r"(?<![\w.])/(?:home|Users|root|work|tmp|opt|farm)/\w")
    for page in PAGES:
        found = paths.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page.name}: {found}"


def test_the_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_generator_notices_a_stale_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("gen_docs", ROOT / "tools" / "gen_docs.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    for folder in ("docs", "src/hubbub"):
        (tmp_path / folder).mkdir(parents=True)
    assert generator.main(["--check"]) == 1
    stale = "docs/settings.md, docs/close-codes.md, src/hubbub/settings_keywords.py"
    assert f"out of date: {stale}" in capsys.readouterr().err
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "docs" / "settings.md").write_text("old", encoding="utf-8")
    assert generator.main(["--check"]) == 1


def test_fault_32_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    titles = set(re.findall(r"^###+ (?:hubbub\.)?([\w.]+)$", page, re.MULTILINE))
    assert set(hubbub.__all__) <= titles
    hub_methods = [
        "on_connect",
        "on_message",
        "on",
        "on_disconnect",
        "on_drop",
        "authenticate",
        "validate",
        "every",
        "lifespan",
        "router",
        "routes",
        "mount",
        "attach",
        "broadcast",
        "publish",
        "disconnect",
        "start",
        "stop",
        "room",
        "everybody",
        "to_user",
        "clients_of",
        "client",
        "client_count",
        "rooms",
        "is_running",
        "stats",
    ]
    assert {f"Hub.{name}" for name in hub_methods} <= titles
    assert {"Hub.lost", "Hub.register", "Client.offer", "Frame.wire"} & titles == set()
    sections = re.split(r"^###+ .*$", page, flags=re.MULTILINE)[1:]
    assert all(re.sub(r"```.*?```", "", section, flags=re.DOTALL).strip() for section in sections)


PACKAGE = {
    "__init__.py": """
from .thing import Kind, Thing, make
if TYPE_CHECKING:
    from .lazy import Lazy
__all__ = ["Kind", "Lazy", "Thing", "make"]
""",
    "thing.py": '''
class Keywords(TypedDict, total=False):
    """Keywords."""

    size: int
    """How large."""
    name: str | None

class Base:
    def shared(self, /, x: int = 1) -> str:
        """Be inherited."""

class Kind(NamedTuple):
    """A kind."""

    a: int
    """The first."""
    b: str = "x"

class Thing(Base):
    """A thing."""

    def __init__(self, *, x: Literal["a", "b"] = "a", **keywords: Unpack[Keywords]) -> None: ...

    @property
    def size(self) -> int:
        """How large it is."""

    @size.setter
    def size(self, value: int) -> None: ...

    @overload
    def get(self, key: int) -> int: ...
    @overload
    async def get(self, key: str, default: object = ...) -> str: ...
    def get(self, key, default=None):
        """Get it."""

    @overload
    def on(self, function: F) -> F: ...
    @overload
    def on(self, function: G) -> G: ...
    def on(self, function):
        """Call it."""

    def every(self, seconds: float) -> Callable[[F | G], F]:
        """Call it often."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be open."""

    def _own(self) -> None:
        """Nobody's business."""

@overload
def make(x: int) -> int: ...
@overload
def make(x: str) -> str: ...
def make(x):
    """Make one."""
''',
    "lazy.py": """
if TYPE_CHECKING:
    Lazy = Annotated[Thing, 1]
else:
    Lazy = Annotated[Base, 1]
'A lazy one.'
""",
}

API_OF_PACKAGE = """# Head

## Things

### package.Thing

```py
Thing(*, x: Literal["a", "b"] = "a", **keywords: Unpack[Keywords])
```

Keywords: `size`, `name`.

A thing.

#### Thing.size

```py
size: int
```

How large it is.

#### Thing.get

```py
get(key: int) -> int
async get(key: str, default: object = ...) -> str
```

Get it.

#### Thing.on

```py
@hub.on
```

Call it.

#### Thing.every

```py
@hub.every(seconds: float)
```

Call it often.

#### Thing.open

```py
async with open()
```

Be open.

#### Thing.shared

```py
shared(x: int = 1) -> str
```

Be inherited.

## Others

### package.Kind

A kind.

- `a: int`: The first.
- `b: str = "x"`

### package.Lazy

A lazy one.

### package.make

```py
make(x: int) -> int
make(x: str) -> str
```

Make one.
"""


def test_fault_32_the_generator_reads_overloads_properties_and_keywords(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(text, encoding="utf-8")
    page = gen_api.Page(gen_api.Package(folder), "package")
    assert page.write("# Head", {"Things": ["Thing"], "Empty": ["nothing"]}) == API_OF_PACKAGE


TROUBLES = ROOT / "docs" / "guides" / "troubleshooting.md"


def cells(heading: str) -> Iterator[str]:
    """Yield the cells of the troubleshooting tables under a column heading."""
    column = None
    for line in TROUBLES.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in line.strip("|").split(" | ")] if line[:1] == "|" else []
        if not row:
            column = None
        elif column is None:
            titles = [title.strip() for title in line.strip("|").split("|")]
            column = titles.index(heading) if heading in titles else -1
        elif 0 <= column < len(row):
            yield row[column]


def test_s24_every_counter_of_troubleshooting_is_in_the_stats() -> None:
    stats = Hub().stats()
    words = [word for cell in cells("counter") for word in re.findall(r"`(\w+)`", cell)]
    assert len(words) > 15
    elsewhere = {"curl"}
    assert set(words) - set(stats) - elsewhere == set()


@functools.cache
def texts() -> frozenset[str]:
    """Return all strings of the code; what is put in at run time stands as …."""
    return frozenset(_texts())


def _texts() -> Iterator[str]:
    for path in (ROOT / "src" / "hubbub").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else "…" for part in node.values
                ]
                yield "".join(str(part) for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[sdg.0-9f]+", "…", node.value)


def says(text: str, line: str) -> bool:
    """Whether a string of the code and a line of the documentation may be the same log line."""
    if all(piece.strip(" ;:") in text for piece in line.split("…")):
        return True
    if len(text) <= 12 or not all(piece in line for piece in text.split("…")):
        return False
    pattern = ".*".join(re.escape(piece) for piece in text.split("…"))
    return re.fullmatch(pattern, line) is not None


def test_s24_every_log_line_of_troubleshooting_is_in_the_code() -> None:
    logged = [cell for cell in cells("log line") if not cell.startswith("none")]
    lines = [line for cell in logged for line in re.findall(r"`([^`]+)`", cell)]
    assert len(lines) > 6
    for line in lines:
        assert any(says(text, line) for text in texts()), f"no code logs {line!r}"


def test_s24_every_status_of_troubleshooting_is_a_refusal_of_the_code() -> None:
    codes = {code for cell in cells("`code`") for code in re.findall(r"`(\w+)`", cell)}
    assert len(codes) > 8
    assert codes <= texts()


SECURITY = ROOT / "docs" / "security.md"


def rows_of(page: Path) -> Iterator[list[str]]:
    """Yield the cells of every table's rows, headings included."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the functions in a file of this repository."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def test_every_threat_names_a_test_that_exists() -> None:
    threats = [cells for cells in rows_of(SECURITY) if len(cells) == 5][1:]
    assert len(threats) > 20
    for *what, test in threats:
        path, _, name = test.strip("`").partition("::")
        assert name in functions_of(path), f"{what}: there is no {test}"


def test_every_default_that_the_security_page_names_is_the_default() -> None:
    known = {row.name: row for row in rows()}
    tables = [cells for cells in rows_of(SECURITY) if len(cells) == 3 and cells[0] != "setting"]
    named = [(name.strip("`"), value.strip("`")) for name, value, _ in tables]
    assert len(named) > 12
    for name, value in named:
        assert value == shown(known[name].default), name


def test_every_setting_of_a_threat_exists() -> None:
    known = {row.name for row in rows()}
    for cells in [cells for cells in rows_of(SECURITY) if len(cells) == 5][1:]:
        for name in re.findall(r"`(\w+)`", cells[3]):
            assert name in known, cells


def test_every_setting_that_the_text_names_exists() -> None:
    known = {row.name for row in rows()} | {row.env for row in rows()}
    known |= {"slow_policies", "broker", "HUBBUB_"}
    known |= {"HUBBUB_SERVICE_HOST", "HUBBUB_PORT"}  # Kubernetes makes them
    pattern = re.compile(r"\b(?:HUBBUB_[A-Z_]+|Hub\((\w+)=)")
    for page in PAGES:
        for found in pattern.finditer(page.read_text(encoding="utf-8")):
            name = found[1] or found[0]
            assert name in known, f"{page.name}: {name}"


def test_a_hub_can_be_awaited_in_no_example_by_accident() -> None:
    """`hub.broadcast` is not a coroutine: an `await` before it in an example would be an error."""

    async def scenario() -> None:
        hub = Hub()
        async with hub.lifespan():
            assert hub.broadcast("x") is None  # type: ignore[func-returns-value]

    anyio.run(scenario)
    for page in PAGES:
        assert "await hub.broadcast" not in page.read_text(encoding="utf-8"), page.name
