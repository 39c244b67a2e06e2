"""Starlette's routes: the socket, why it was refused, and the files, at exactly their places."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from hubbub import Handshake, Hub


@pytest.mark.parametrize("path", ["/ws", "/deep/in/here", "/"])
def test_s07_the_routes_serve_socket_reason_and_files(path: str) -> None:
    hub = Hub()

    @hub.authenticate
    def who(handshake: Handshake) -> str | None:
        return handshake.query.get("user")

    app = Starlette(routes=hub.routes(path), lifespan=hub.lifespan)
    files = "" if path == "/" else path
    with TestClient(app) as client:
        with client.websocket_connect(f"{path}?user=ann") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"
        assert client.get(path).status_code == 401
        assert client.get(f"{path}?user=ann").status_code == 426
        assert "class Hubbub" in client.get(f"{files}/hubbub.js").text
        assert client.get(f"{files}/hubbub.d.ts").status_code == 200
        assert client.get(f"{files}/other.js").status_code == 404
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(f"{files}/elsewhere"):
            pass
