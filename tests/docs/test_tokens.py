"""The guide to tokens: its applications issue, verify, refresh, and refuse."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from hubbub.testing import FakeClock, advance_time, set_clock
from pages import named, refusal, run


def signed(app: Any, lives_s: float = 600, **claims: Any) -> str:
    return jwt.encode({"exp": int(time.time() + lives_s), **claims}, app.SECRET, "HS256")


def test_tokens_are_issued_and_verified(load: Any) -> None:
    app = load("docs/tokens.md", "chat_app.py")
    with TestClient(app.app) as client:
        assert client.post("/token").status_code == 401
        client.cookies.set("session", "s3cr3t")
        token = client.post("/token").json()["token"]
        with client.websocket_connect(f"/ws?token={token}") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "Ann: hello"
            assert [found.user for found in app.hub] == ["ann"]
        assert refusal(client, "/ws")[1]["code"] == "token_missing"
        for wrong, code in (
            (signed(app, sub="ann"), "token_invalid"),
            (signed(app, sub=7, aud="chat"), "token_invalid"),
            (signed(app, -600, sub="ann", aud="chat"), "token_expired"),
        ):
            status, body = refusal(client, f"/ws?token={wrong}")
            assert (status, body["code"]) == (401, code)


DJANGO_CHECK = """
from django_app import app, hub
from django.conf import settings
from django.contrib.auth.models import User
from starlette.testclient import TestClient

settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a fast one
User.objects.create_user("first")
ann = User.objects.create_user("ann", password="ann's own")
with TestClient(app) as client:
    assert client.post("/token").status_code == 401
    assert client.post("/login", data={"name": "ann", "password": "wrong"}).status_code == 401
    assert client.post("/token").status_code == 401
    right = {"name": "ann", "password": "ann's own"}
    assert client.post("/login", data=right).json() == {"name": "ann"}
    signed = client.post("/token").json()["token"]
    with client.websocket_connect("/ws?token=" + signed) as socket:
        assert [found.user for found in hub] == [str(ann.pk)] == ["2"]
        socket.send_text("hello")
        assert socket.receive_text() == "2: hello"
"""


def test_tokens_of_a_view_of_django(tmp_path: Path) -> None:
    """The commands of the page make the database; whoever has logged in gets a token."""
    file = tmp_path / "django_app.py"
    file.write_text(named("docs/tokens.md")[file.name], encoding="utf-8")
    assert "Applying sessions.0001_initial... OK" in run([file.name, "migrate"], tmp_path)
    assert run(["-c", DJANGO_CHECK], tmp_path) == ""


def test_tokens_and_what_the_application_knows(load: Any) -> None:
    app = load("docs/tokens.md", "members_app.py")
    with TestClient(app.app) as client:
        with client.websocket_connect(f"/ws?token={signed(app, sub='ann')}") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "admin: hello"
        assert refusal(client, f"/ws?token={signed(app, sub='bob')}")[0] == 403
        status, body = refusal(client, "/ws?token=nonsense")
        assert (status, body["code"]) == (401, "token_invalid")


def test_tokens_are_refreshed(load: Any) -> None:
    app = load("docs/tokens.md", "refresh_app.py")
    set_clock(app.hub, FakeClock())
    with TestClient(app.app) as client:
        assert client.portal is not None
        with client.websocket_connect(f"/ws?token={signed(app, 100, sub='ann')}") as ann:
            client.portal.call(advance_time, app.hub, 75)
            assert ann.receive_json()["type"] == "refresh"
            for wrong, code in (
                (signed(app, sub="bob"), "forbidden"),
                (signed(app, -9, sub="ann"), "bad_token"),
                ("x", "bad_token"),
                (None, "bad_token"),
            ):
                ann.send_json({"type": "token", "token": wrong})
                assert ann.receive_json()["code"] == code
            ann.send_json({"type": "token", "token": signed(app, sub="ann")})
            ann.send_json({"type": "what"})
            assert ann.receive_json()["code"] == "unknown_type", "so the refresh has been read"
            client.portal.call(advance_time, app.hub, 75)
            ann.send_json({"type": "what"})
            assert ann.receive_json()["code"] == "unknown_type", "it is still there"
            client.portal.call(advance_time, app.hub, 600)
            assert ann.receive_json()["type"] == "refresh"
            with pytest.raises(WebSocketDisconnect) as caught:
                ann.receive_json()
            assert caught.value.code == 3005


def test_tokens_of_sdks_for_rooms(load: Any) -> None:
    app = load("docs/tokens.md", "sdk_tokens_app.py")
    room = "document:plan"
    subscribe: dict[str, Any] = {"channel": room}
    publish = {"channel": room, "data": {"text": "hello"}}
    with TestClient(app.app) as client:
        for path in ("/token", f"/token/{room}"):
            assert client.post(path).status_code in {401, 403}
        client.cookies.set("session", "s3same")
        bobs = client.post("/token").json()["token"]
        assert client.post(f"/token/{room}").status_code == 403
        client.cookies.set("session", "s3cr3t")
        anns, for_room = (client.post(p).json()["token"] for p in ("/token", f"/token/{room}"))
        with (
            client.websocket_connect("/connection/websocket") as ann,
            client.websocket_connect("/connection/websocket") as bob,
        ):
            for socket, token in ((ann, anns), (bob, bobs)):
                socket.send_json({"id": 1, "connect": {"token": token}})
                assert "connect" in socket.receive_json()
            bob.send_json({"id": 2, "subscribe": subscribe})
            assert bob.receive_json()["error"]["code"] == 103
            ann.send_json({"id": 2, "subscribe": {**subscribe, "token": for_room}})
            assert "subscribe" in ann.receive_json()
            ann.send_json({"id": 3, "publish": publish})
            told = {name: text for _ in range(2) for name, text in ann.receive_json().items()}
            assert told["push"]["pub"]["data"] == {"text": "hello"}
            assert "publish" in told
            bob.send_json({"id": 3, "publish": publish})
            assert bob.receive_json()["error"]["code"] == 103
            assert {found.user for found in app.hub} == {"ann", "bob"}


def test_tokens_for_rooms(load: Any) -> None:
    app = load("docs/tokens.md", "documents_app.py")
    good = signed(app, sub="ann", channel="plan")
    with TestClient(app.app) as client:
        assert refusal(client, f"/ws?token={good}")[1]["code"] == "token_invalid"
        with client.websocket_connect(f"/ws?token={signed(app, sub='ann')}") as ann:
            for room, token in (("budget", good), ("plan", signed(app, sub="bob", channel="plan"))):
                ann.send_json({"type": "open", "room": room, "token": token})
                assert ann.receive_json()["code"] == "forbidden"
            ann.send_json({"type": "open", "room": "plan", "token": good})
            assert ann.receive_json() == {"type": "opened", "room": "plan"}
            assert app.hub.rooms == {"plan": 1}
