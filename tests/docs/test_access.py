"""The guides' examples of who may do what, and of sending somebody away."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from pages import assert_only_listens, refusal


def test_authentication_members_alone_may_join(load: Any) -> None:
    rooms = load("docs/guides/authentication.md", "rooms_app.py")
    with TestClient(rooms.app) as client:
        assert refusal(client, "/ws")[0] == 401
        with (
            client.websocket_connect("/ws?user=ann") as ann,
            client.websocket_connect("/ws?user=bob") as bob,
        ):
            for socket in (ann, bob):
                socket.send_json({"type": "join", "room": "board"})
            assert ann.receive_json() == {"type": "joined", "room": "board"}
            assert bob.receive_json()["code"] == "forbidden"
            assert rooms.hub.rooms == {"board": 1}


def test_authentication_a_client_is_kicked_by_its_id(load: Any) -> None:
    app = load("docs/guides/authentication.md", "admin_app.py").app
    with TestClient(app) as client, client.websocket_connect("/ws?id=ann") as ann:
        assert_only_listens(ann)
        assert client.get("/admin/nodes").json() == [{"clients": 1, "rooms": 0}]
        assert client.post("/admin/kick/bob").json() == {"was_here": False}
        assert client.post("/admin/kick/ann").json() == {"was_here": True}
        with pytest.raises(WebSocketDisconnect) as caught:
            ann.receive_text()
        assert (caught.value.code, caught.value.reason) == (3503, "enough")
