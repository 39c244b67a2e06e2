"""The examples: complete files that run as their first lines say, and do what they say."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from places import ROOT
from serving import PATIENCE_S, Served, serve, take

pytestmark = pytest.mark.anyio

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))

Load = Callable[[str], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Give a function that imports an example anew and returns its application."""

    def load_app(name: str) -> Any:
        path = EXAMPLES / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module.app

    return load_app


async def objects(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Receive `count` JSON messages."""
    return [json.loads(text) for text in await take(socket, count)]


async def only_listens(socket: ClientConnection) -> None:
    """What it says goes to nobody, and it is told so."""
    await socket.send("me too")
    [error] = await objects(socket, 1)
    assert error["code"] == "listen_only"


def client_of(served: Served) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=served.http(""), trust_env=False)


async def test_s08_chat_announces_join_and_leave(load: Load) -> None:
    async with serve(load("chat")) as served, served.connect("/ws?username=ann") as ann:
        assert await objects(ann, 1) == [{"type": "joined", "name": "ann"}]
        async with served.connect("/ws") as nameless:
            await nameless.send("hello")
            joined, said = await objects(ann, 2)
            name = joined["name"]
            assert said == {"type": "said", "name": name, "text": "hello"}
        assert await objects(ann, 1) == [{"type": "left", "name": name}]


async def test_fault_29_no_name_in_the_chat_looks_like_the_server(load: Load) -> None:
    name, text = 'bob left the chat\n{"type": "left"', "\nbob joined the chat"
    async with (
        serve(load("chat")) as served,
        served.connect("/ws?username=ann") as ann,
        served.connect(f"/ws?username={quote(name)}") as liar,
    ):
        await liar.send(text)
        assert (await objects(ann, 3))[1:] == [
            {"type": "joined", "name": name},
            {"type": "said", "name": name, "text": text},
        ]


async def test_fault_29_a_notification_s_kind_is_none_of_the_hub_s_own_types(load: Load) -> None:
    async with serve(load("notifications")) as served, client_of(served) as http:
        for kind in ("refresh", "token", ""):
            answer = await http.post("/notify", params={"message": "x", "kind": kind})
            assert answer.status_code == 422


async def test_s09_notifications_carry_type_message_and_time(load: Load) -> None:
    async with (
        serve(load("notifications")) as served,
        served.connect() as socket,
        client_of(served) as http,
    ):
        answer = await http.post("/notify", params={"message": "Lunch is ready", "kind": "success"})
        assert (answer.status_code, answer.json()) == (202, {"clients": 1})
        [notification] = await objects(socket, 1)
        assert (notification["type"], notification["message"]) == ("success", "Lunch is ready")
        assert datetime.fromisoformat(notification["time"]).tzinfo is not None
        await only_listens(socket)


async def test_s10_live_data_ticks(load: Load) -> None:
    async with serve(load("live")) as served, served.connect() as socket:
        first, second = await objects(socket, 2)
        assert {first["type"], second["type"]} == {"tick"}
        times = [datetime.fromisoformat(tick["time"]) for tick in (first, second)]
        assert 0.5 < (times[1] - times[0]).total_seconds() < PATIENCE_S


async def test_s21_game_moves_within_an_arena(load: Load) -> None:
    async with (
        serve(load("game")) as served,
        served.connect() as ann,
        served.connect() as bob,
    ):
        await ann.send('{"type": "join", "arena": "red"}')
        [alone] = await objects(ann, 1)
        await bob.send('{"type": "join", "arena": "red"}')
        [both] = await objects(bob, 1)
        assert both["players"][:1] == alone["players"]
        bob_id = both["players"][1]
        assert await objects(ann, 1) == [{"type": "joined", "player": bob_id}]
        await bob.send('{"type": "move", "x": 3, "y": 4}')
        assert await objects(ann, 1) == [{"type": "moved", "player": bob_id, "x": 3, "y": 4}]
        await bob.send('{"type": "move", "x": "three", "y": 4}')
        [error] = await objects(bob, 1)
        assert error["code"] == "invalid_message", "and the move itself did not come back"
        await bob.close()
        assert await objects(ann, 1) == [{"type": "left", "player": bob_id}]


async def test_s21_an_arena_has_room_for_so_many(load: Load) -> None:
    async with serve(load("game")) as served, asyncio.TaskGroup() as group:

        async def play() -> str:
            async with served.connect() as socket:
                await socket.send('{"type": "join", "arena": "red"}')
                [answer] = await objects(socket, 1)
                await everybody_came.wait()
                return str(answer.get("code", answer["type"]))

        everybody_came = asyncio.Barrier(9)
        players = [group.create_task(play()) for _ in range(9)]
    answers = sorted(player.result() for player in players)
    assert answers == ["full", *["players"] * 8]


async def test_auth_refuses_and_whispers(load: Load) -> None:
    async with serve(load("auth")) as served, client_of(served) as http:
        with pytest.raises(InvalidStatus) as refusal:
            await served.connect("/ws?token=wrong")
        body = {"error": "This token is not valid", "code": "unauthorized"}
        assert refusal.value.response.status_code == 401
        assert json.loads(refusal.value.response.body) == body
        assert (await http.get("/ws")).json() == body
        assert "hubbub.js" in (await http.get("/")).text
        bearer = {"Authorization": "Bearer ann-secret"}
        async with (
            served.connect("/ws", additional_headers=bearer) as ann,
            served.connect("/ws?token=bob-secret") as phone,
            served.connect("/ws?token=bob-secret") as laptop,
        ):
            assert await take(ann, 1) == ["You are ann"]
            await ann.send("bob: psst: here")
            for socket in (phone, laptop):
                assert await take(socket, 2) == ["You are bob", "ann whispers: psst: here"]


async def test_starlette_publishes_from_a_route(load: Load) -> None:
    async with (
        serve(load("starlette_app")) as served,
        served.connect() as socket,
        client_of(served) as http,
    ):
        answer = await http.post("/say", content="hello")
        assert answer.json() == {"clients": 1}
        assert await take(socket, 1) == ["hello"]
        await only_listens(socket)
        assert (await http.get("/ws")).status_code == 426
        assert (await http.get("/ws/hubbub.js")).status_code == 200


async def test_django_publishes_from_a_plain_view(load: Load) -> None:
    async with (
        serve(load("django_app")) as served,
        served.connect() as socket,
        client_of(served) as http,
    ):
        assert (await http.get("/orders/7")).json() == {"clients": 1}
        assert await objects(socket, 1) == [{"type": "order", "number": 7}]
        await only_listens(socket)
        assert (await http.get("/nowhere")).status_code == 404


async def test_plain_asgi_counts_and_passes_on(load: Load) -> None:
    async with (
        serve(load("plain_asgi")) as served,
        served.connect() as socket,
        client_of(served) as http,
    ):
        assert (await http.get("/")).text == "1 connected\n"
        async with served.connect() as other:
            await socket.send(b"\x00\x01")
            await other.send("mine")
            assert await take(socket, 1) == [b"\x00\x01"]
            assert await take(other, 1) == ["mine"], "an echo is for its sender alone"


async def test_tokens_two_tabs_a_reload_and_a_lost_connection_see_one_text(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = load("tokens/tokens_app")
    module = sys.modules["tokens/tokens_app"]
    assert module.TOKENS_PER_SECOND == 50, "as its page is told; here it is in more of a hurry"
    monkeypatch.setattr(module, "TOKENS_PER_SECOND", 500)
    monkeypatch.setattr(module, "TOKENS", 120)
    async with serve(app) as served, client_of(served) as http:
        page = (await http.get("/")).text
        assert "/ws/hubbub.js" in page
        assert "http" not in page, "nothing comes from elsewhere"
        answer = (await http.post("/ask")).json()["answer"]
        path = f"/ws?answer={answer}"

        async def read(socket: ClientConnection, count: int | None = None) -> list[dict[str, Any]]:
            """Receive so many messages, or all until the end."""
            found: list[dict[str, Any]] = []
            while len(found) != count and not (found and found[-1].get("is_final")):
                found += await objects(socket, 1)
            return found

        async with served.connect(path) as one, served.connect(path) as two:
            before = await read(one, 20)
            await one.close()
            place = f"&offset={before[-1]['offset']}&epoch={quote(before[0]['epoch'])}"
            async with served.connect(path) as reloaded, served.connect(path + place) as back:
                whole = await read(two)
                later = await read(reloaded)
                rest = await read(back)
    text = "".join(message["text"] for message in whole)
    assert len(text.split()) == 120
    assert (later[0]["type"], rest[0]["type"]) == ("stream", "append")
    assert "".join(message["text"] for message in later) == text
    assert "".join(message["text"] for message in before + rest) == text
    assert len(later) < len(whole), "what was so far came in one"


def test_the_tokens_say_how_to_run_them() -> None:
    source = (EXAMPLES / "tokens" / "tokens_app.py").read_text(encoding="utf-8")
    assert "uvicorn tokens_app:app --ws hubbub:Protocol" in source


@pytest.mark.parametrize("name", NAMES)
def test_every_example_says_how_to_run_it(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert f"uvicorn {name}:app --ws hubbub:Protocol" in source
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert f'load("{name}")' in tests or f'EXAMPLES / "{name}.py"' in tests, "and it is tested"
