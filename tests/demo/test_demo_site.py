"""The demo's pages and sockets, served by a real server in the test's own process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection

from hubbub import MissingExtra
from hubbub.demo import create_app
from hubbub.demo.controllers import live, monitor
from serving import PATIENCE_S, Served, serve, take

pytestmark = pytest.mark.anyio

PAGES = ["/websocket", "/chat", "/notifications", "/live", "/game", "/monitor"]
SOCKETS = ["/ws", "/ws/chat", "/ws/notifications", "/ws/live", "/ws/game", "/ws/monitor"]
MARKUP = "<img src=x onerror=window.pwned=1>"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tickers tick fast."""
    monkeypatch.setattr(live, "TICK_S", 0.02)
    monkeypatch.setattr(monitor, "READING_S", 0.02)


@asynccontextmanager
async def demo() -> AsyncIterator[tuple[Served, httpx2.AsyncClient]]:
    async with serve(create_app()) as served:
        base = served.http("")
        async with httpx2.AsyncClient(base_url=base, trust_env=False) as http:
            yield served, http


async def next_of(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """Receive until a JSON message of this type comes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            text = await socket.recv()
            message = json.loads(text) if text[:1] in ("{", b"{") else {}
            if message.get("type") == kind:
                assert isinstance(message, dict)
                return message


async def next_text(socket: ClientConnection) -> str:
    """Receive until a message that is no JSON comes."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            text = await socket.recv()
            assert isinstance(text, str)
            if not text.startswith('{"type"'):
                return text


async def test_every_page_is_there_and_links_to_all() -> None:
    async with demo() as (_, http):
        for path in PAGES:
            page = await http.get(path)
            assert page.status_code == 200
            links = re.findall(r'<a href="(/\w+)"', page.text)
            assert links[: len(PAGES)] == PAGES
            assert f'<a href="{path}" aria-current="page">' in page.text


async def test_the_root_leads_to_the_first_page() -> None:
    async with demo() as (_, http):
        answer = await http.get("/")
        assert answer.is_redirect
        assert answer.headers["location"] == "/websocket"


async def test_nothing_comes_from_elsewhere_and_no_script_is_inline() -> None:
    async with demo() as (_, http):
        for path in PAGES:
            page = await http.get(path)
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
            assert page.headers["x-content-type-options"] == "nosniff"
            assert not re.search(r'(src|href)="(https?:)?//', page.text)
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page.text)
            for local in re.findall(r'(?:src|href)="(/[^"]+\.\w+)"', page.text):
                file = await http.get(local)
                assert file.status_code == 200, local
                assert file.headers["x-content-type-options"] == "nosniff"


async def test_a_name_in_the_address_is_escaped() -> None:
    async with demo() as (_, http):
        for path in ("/websocket", "/chat"):
            page = await http.get(path, params={"username": '"><img src=x>'})
            assert "<img src=x>" not in page.text
            assert "&#34;&gt;&lt;img src=x&gt;" in page.text


async def test_a_socket_that_is_asked_by_get_says_so() -> None:
    async with demo() as (_, http):
        for path in SOCKETS:
            assert (await http.get(path)).status_code == 426
        assert (await http.get("/ws/hubbub.d.ts")).status_code == 200


async def test_stats_and_health() -> None:
    async with demo() as (served, http), served.connect("/ws/chat") as socket:
        await next_of(socket, "joined")
        stats = (await http.get("/stats")).json()
        assert list(stats) == [path.removeprefix("/") for path in PAGES]
        assert stats["chat"]["clients"] == 1
        assert stats["game"]["clients"] == 0
        assert (await http.get("/healthz")).json() == {"status": "ok"}


async def test_the_first_page_carries_text_within_a_room() -> None:
    async with (
        demo() as (served, _),
        served.connect("/ws?username=ann") as ann,
        served.connect("/ws?username=bob&room=garden") as bob,
    ):
        assert (await next_of(ann, "you"))["name"] == "ann"
        assert (await next_of(ann, "entered"))["room"] == "lobby"
        assert (await next_of(bob, "entered"))["room"] == "garden"
        await ann.send("nobody hears this")
        await bob.send('{"type": "enter", "room": "lobby"}')
        assert (await next_of(bob, "entered"))["room"] == "lobby"
        await ann.send(f"hello {MARKUP}")
        assert await next_text(bob) == f"ann: hello {MARKUP}"
        assert await next_text(ann) == "ann: nobody hears this"


async def test_the_first_page_tells_who_is_online() -> None:
    async with demo() as (served, _), served.connect("/ws?username=ann") as ann:
        assert (await next_of(ann, "online"))["count"] == 1
        async with served.connect("/ws?username=bob"):
            online = await next_of(ann, "online")
            assert [person["name"] for person in online["names"]] == ["ann", "bob"]
        assert (await next_of(ann, "online"))["count"] == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type": "enter", "room": "cellar"}', "unknown_room"),
        ('{"type": "enter", "room": 7}', "invalid_message"),
        ('{"type": "enter"}', "invalid_message"),
    ],
)
async def test_a_wrong_room_is_answered_and_nothing_changes(message: str, code: str) -> None:
    async with demo() as (served, _), served.connect("/ws?username=ann") as ann:
        await ann.send(message)
        assert (await next_of(ann, "error"))["code"] == code
        await ann.send("still here")
        assert await next_text(ann) == "ann: still here"


async def test_a_name_is_given_to_who_brings_none() -> None:
    async with demo() as (served, _), served.connect("/ws?username=%20:%20") as socket:
        assert re.fullmatch(r"[a-z]+-[a-z]+", (await next_of(socket, "you"))["name"])


async def test_s08_chat_announces_join_and_leave() -> None:
    async with demo() as (served, _), served.connect("/ws/chat?username=ann") as ann:
        assert (await next_of(ann, "joined"))["name"] == "ann"
        async with served.connect("/ws/chat?username=bob") as bob:
            assert (await next_of(ann, "joined"))["name"] == "bob"
            log = await next_of(bob, "log")
            assert (log["you"], log["lines"][0]["type"]) == ("bob", "joined")
            await bob.send("  ")
            await bob.send(MARKUP)
            said = await next_of(ann, "said")
            assert (said["name"], said["text"]) == ("bob", MARKUP)
            assert datetime.fromisoformat(said["time"]).tzinfo is not None
        assert (await next_of(ann, "left"))["name"] == "bob"


async def test_s09_a_post_publishes_a_notification() -> None:
    async with demo() as (served, http), served.connect("/ws/notifications") as socket:
        assert await next_of(socket, "recent") == {"type": "recent", "notifications": []}
        body = {"type": "warning", "message": f" {MARKUP} "}
        answer = await http.post("/notifications", json=body)
        assert (answer.status_code, answer.json()) == (201, {"delivered_to": 1})
        notification = await next_of(socket, "warning")
        assert notification["message"] == MARKUP
        assert datetime.fromisoformat(notification["time"]).tzinfo is not None
        async with served.connect("/ws/notifications") as late:
            assert (await next_of(late, "recent"))["notifications"] == [notification]


async def test_s09_a_plain_function_publishes_from_a_thread() -> None:
    async with demo() as (served, http), served.connect("/ws/notifications") as socket:
        await next_of(socket, "recent")
        assert (await http.post("/notifications/samples/success")).status_code == 204
        assert "backup" in (await next_of(socket, "success"))["message"]
        assert (await http.post("/notifications/samples/none")).status_code == 404


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"type=info&message=x", "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"{}", "application/json", 422),
        (b'{"type": "info", "message": ""}', "application/json; charset=utf-8", 422),
    ],
)
async def test_a_wrong_notification_is_refused_with_a_sentence(
    content: bytes, kind: str, status: int
) -> None:
    async with demo() as (_, http):
        answer = await http.post("/notifications", content=content, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert answer.json()["error"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("page", "kinds"), [("live", "history tick"), ("notifications", "recent info")]
)
async def test_what_clients_send_where_they_only_listen_goes_nowhere(page: str, kinds: str) -> None:
    async with (
        demo() as (served, http),
        served.connect(f"/ws/{page}") as one,
        served.connect(f"/ws/{page}") as other,
    ):
        await one.send('{"type": "info", "message": "forged"}')
        await one.send(b"\x00")
        assert (await next_of(one, "error"))["code"] == "text_expected"
        await http.post("/notifications/samples/info")
        heard = [json.loads(text) for text in await take(other, 2)]
        assert " ".join(message["type"] for message in heard) == kinds
        assert "forged" not in str(heard)


@pytest.mark.usefixtures("quick")
async def test_s10_live_data_ticks_while_somebody_listens() -> None:
    async with demo() as (served, http):
        async with served.connect("/ws/live") as socket:
            assert (await next_of(socket, "history"))["ticks"] == []
            ticks = [await next_of(socket, "tick") for _ in range(3)]
            assert len({tick["time"] for tick in ticks}) == 3
            assert set(ticks[0]["prices"]) == {"Harbour", "Meadow", "Attic"}
        async with served.connect("/ws/live") as later:
            assert (await next_of(later, "history"))["ticks"][:3] == ticks
        assert (await http.get("/stats")).json()["live"]["handler_errors"] == 0


async def test_s21_a_move_goes_to_everybody_else_in_the_arena() -> None:
    async with (
        demo() as (served, _),
        served.connect("/ws/game?username=ann") as ann,
        served.connect("/ws/game?username=bob") as bob,
        served.connect("/ws/game?username=eve") as eve,
    ):
        for socket, arena in ((ann, "meadow"), (eve, "attic"), (bob, "meadow")):
            await socket.send(json.dumps({"type": "enter", "arena": arena}))
            await next_of(socket, "arena")
        joined = await next_of(ann, "joined")
        assert joined["player"]["name"] == "bob"
        await bob.send('{"type": "move", "x": 0.25, "y": 9}')
        moved = await next_of(ann, "moved")
        assert (moved["id"], moved["x"], moved["y"]) == (joined["player"]["id"], 0.25, 1.0)
        await bob.send('{"type": "enter", "arena": "attic"}')
        assert (await next_of(ann, "left"))["id"] == moved["id"]
        assert (await next_of(eve, "joined"))["player"]["name"] == "bob"
        shown = await next_of(bob, "arena")
        assert [player["name"] for player in shown["players"]] == ["eve", "bob"]


async def test_s21_who_goes_is_out_of_the_arena() -> None:
    async with demo() as (served, _), served.connect("/ws/game") as ann:
        await ann.send('{"type": "enter", "arena": "harbour"}')
        await next_of(ann, "arena")
        async with served.connect("/ws/game") as bob:
            me = (await next_of(bob, "you"))["id"]
            await bob.send('{"type": "enter", "arena": "harbour"}')
            await next_of(ann, "joined")
        assert (await next_of(ann, "left"))["id"] == me


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type": "enter", "arena": "moon"}', "unknown_arena"),
        ('{"type": "move", "x": 0, "y": 0}', "no_arena"),
        ('{"type": "move", "x": "left", "y": 0}', "invalid_message"),
        ('{"type": "jump"}', "unknown_type"),
        ("not even JSON", "unknown_type"),
    ],
)
async def test_a_wrong_move_is_answered(message: str, code: str) -> None:
    async with demo() as (served, _), served.connect("/ws/game") as socket:
        await socket.send(message)
        assert (await next_of(socket, "error"))["code"] == code


@pytest.mark.usefixtures("quick")
async def test_s22_the_monitor_tells_of_all_hubs() -> None:
    async with (
        demo() as (served, _),
        served.connect("/ws/chat"),
        served.connect("/ws/monitor") as socket,
    ):
        await next_of(socket, "history")
        reading = await next_of(socket, "reading")
        assert set(reading) >= {"time", "cpu", "machine", "memory", "clients", "in", "out"}
        assert reading["clients"] == 2


async def test_noise_is_bounded() -> None:
    async with demo() as (served, _), served.connect("/ws/monitor") as socket:
        await socket.send('{"type": "noise", "count": 3}')
        noises = [await next_of(socket, "noise") for _ in range(3)]
        assert [noise["number"] for noise in noises] == [0, 1, 2]
        await socket.send('{"type": "noise", "count": 100000}')
        assert (await next_of(socket, "error"))["code"] == "invalid_message"


async def test_two_applications_have_nothing_in_common() -> None:
    async with (
        demo() as (one, _),
        demo() as (other, http),
        one.connect("/ws/chat?username=ann") as socket,
    ):
        await next_of(socket, "joined")
        assert (await http.get("/stats")).json()["chat"]["clients"] == 0
        assert other.port != one.port


@pytest.mark.parametrize("package", ["starlette", "jinja2"])
async def test_a_missing_package_is_one_sentence(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == package else found(name, *rest)

    monkeypatch.setattr("hubbub.demo.find_spec", find_spec)
    with pytest.raises(MissingExtra, match=rf"^{package} is not installed: .*hubbub\[demo\]'$"):
        create_app()


async def test_the_module_has_the_application() -> None:
    from hubbub.demo.app import app

    assert [getattr(route, "path", None) for route in app.routes[:1]] == ["/"]
