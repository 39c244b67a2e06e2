"""The guide to frameworks: each of its applications counts, echoes and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from pages import assert_echoes, named, refusal, run


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
