"""The README's chat and the tutorial's steps do what the text says."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from pages import blocks, refusal
from places import ROOT


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
        socket.send_text("hello")
        assert "listen_only" in iter(lambda: socket.receive_json().get("code"), "never")
