"""The demo's pages and sockets, served by a real server in the test's own process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection

from hubbub import HubNotRunning, MissingExtra
from hubbub.demo import create_app, gate
from hubbub.demo.controllers import live, monitor
from hubbub.demo.gate import Gate
from hubbub.demo.models.names import clean_name
from serving import PATIENCE_S, Served, serve, take

pytestmark = pytest.mark.anyio

PAGES = ["/websocket", "/chat", "/channels", "/notifications", "/live", "/game", "/monitor"]
SOCKETS = ["/ws", "/ws/chat", "/ws/notifications", "/ws/live", "/ws/game", "/ws/monitor"]
"""Of plain clients; what clients of the Centrifuge protocol are told is in test_demo_channels."""
ALL_SOCKETS = [*SOCKETS, "/ws/channels"]
MARKUP = "<img src=x onerror=window.pwned=1>"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tickers tick fast."""
    monkeypatch.setattr(live, "TICK_S", 0.02)
    monkeypatch.setattr(monitor, "READING_S", 0.02)


@asynccontextmanager
async def demo(**config: Any) -> AsyncIterator[tuple[Served, httpx2.AsyncClient]]:
    async with serve(create_app(), **config) as served:
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


async def next_said(socket: ClientConnection) -> tuple[str, str, str]:
    """Receive until somebody said something; return the room, who, and what."""
    said = await next_of(socket, "said")
    assert set(said) == {"type", "room", "name", "text", "time"}
    assert datetime.fromisoformat(said["time"]).tzinfo is not None
    return said["room"], said["name"], said["text"]


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
        for path in ("/websocket", "/chat", "/channels"):
            page = await http.get(path, params={"username": '"><img src=x>'})
            assert "<img src=x>" not in page.text
            assert "&#34;&gt;&lt;img src=x&gt;" in page.text


async def test_a_socket_that_is_asked_by_get_says_so() -> None:
    async with demo() as (_, http):
        for path in ALL_SOCKETS:
            assert (await http.get(path)).status_code == 426
        assert (await http.get("/ws/hubbub.d.ts")).status_code == 200


async def test_stats_and_health() -> None:
    async with demo() as (served, http), served.connect("/ws/chat") as socket:
        await next_of(socket, "joined")
        stats = (await http.get("/stats")).json()
        assert list(stats) == [path.removeprefix("/") for path in PAGES]
        assert stats["chat"]["clients"] == 1
        assert stats["game"]["clients"] == 0
        assert (await http.get("/healthz")).json() == {"status": "ok", "broker": "up"}


async def test_the_first_page_carries_lines_within_a_room() -> None:
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
        assert await next_said(bob) == ("lobby", "ann", f"hello {MARKUP}")
        assert await next_said(ann) == ("lobby", "ann", "nobody hears this")


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
        assert await next_said(ann) == ("lobby", "ann", "still here")


async def test_a_name_is_given_to_who_brings_none() -> None:
    async with demo() as (served, _), served.connect("/ws?username=%20%00%20") as socket:
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


async def test_chat_shows_who_is_here_once_and_then_what_changes() -> None:
    async with demo() as (served, _), served.connect("/ws/chat?username=ann") as ann:
        present = await next_of(ann, "present")
        assert (present["count"], [who["user"] for who in present["people"]]) == (1, ["ann"])
        async with (
            served.connect("/ws/chat?username=bob") as bob,
            served.connect("/ws/chat?username=bob"),
        ):
            assert [who["user"] for who in (await next_of(ann, "presence"))["joined"]] == ["bob"]
            present = await next_of(bob, "present")
            assert {who["user"] for who in present["people"]} == {"ann", "bob"}
        async with served.connect("/ws/chat?username=bob"), served.connect("/ws/chat?username=eve"):
            # Bob has reloaded his page: the next that is told is another.
            assert [who["user"] for who in (await next_of(ann, "presence"))["joined"]] == ["eve"]


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
        (b"{}", "text/plain", 415),
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
    ("page", "kinds"),
    [("live", "server history tick"), ("notifications", "server recent info")],
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
        heard = [json.loads(text) for text in await take(other, 3)]
        assert " ".join(message["type"] for message in heard) == kinds
        assert "forged" not in str(heard)


@pytest.mark.usefixtures("quick")
async def test_s10_live_data_ticks_while_somebody_listens() -> None:
    async with demo() as (served, http):
        async with served.connect("/ws/live") as socket:
            assert (await next_of(socket, "history"))["ticks"] == []
            ticks = [await next_of(socket, "tick") for _ in range(3)]
            times = [tick["time"] for tick in ticks]
            assert times == sorted(times)
            assert len(set(times)) > 1, "after a late tick the next may come at once, and no third"
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


JSON = {"Content-Type": "application/json"}
HTTP_CLASSES = pytest.mark.parametrize("http_class", ["h11", "httptools"])


async def expect_the_board(served: Served, *messages: str) -> None:
    """See that newcomers get the board, and what is on it."""
    async with served.connect("/ws/notifications") as newcomer:
        recent = await next_of(newcomer, "recent")
        assert [kept["message"] for kept in recent["notifications"]] == list(messages)
        assert await asyncio.wait_for(await newcomer.ping(), PATIENCE_S) >= 0


WRONG_BODIES = [
    (b'{"type": "info", "message": "x\\ud800"}', 400),
    (b'{"type": "\\ud800", "message": "x"}', 400),
    (b"[" * 8000, 422),
    (b'{"type": "info", "message": ' + b"[" * 8000, 422),
    (b"null", 422),
    (b"NaN", 400),
    (b"", 400),
    (b'{"type": ["info"], "message": {}}', 422),
    (b'{"type": ' + b"9" * 6000 + b', "message": "x"}', 422),
    (b'{"type": "info", "message": "\xed\xa0\x80"}', 400),
]


@HTTP_CLASSES
@pytest.mark.parametrize("native", [True, False])
async def test_fault_29_a_body_that_is_no_notification_poisons_nothing(
    native: bool, http_class: str
) -> None:
    async with demo(native=native, http=http_class) as (served, http):
        for content, status in WRONG_BODIES:
            answer = await http.post("/notifications", content=content, headers=JSON)
            assert answer.status_code == status, content
            assert answer.json()["error"]
        deep = b'{"more": ' + b"[" * 4000 + b"]" * 4000 + b"}"
        answer = await http.post("/notifications", content=deep, headers=JSON)
        # Too deep for Python 3.11 and 3.12; newer ones read it, and miss the type.
        assert answer.status_code == (400 if sys.version_info < (3, 13) else 422)
        await expect_the_board(served)


@HTTP_CLASSES
@pytest.mark.parametrize("path", ["/notifications", "/notifications/samples/info", "/", "/ws"])
@pytest.mark.parametrize("is_declared", [True, False])
async def test_fault_29_a_huge_body_is_refused_while_it_is_read(
    path: str, is_declared: bool, http_class: str
) -> None:
    """It is refused after its first part: nobody waits for the rest, or keeps it."""
    line = b"Content-Length: 150000000" if is_declared else b"Transfer-Encoding: chunked"
    part = b"x" * 20_000
    async with demo(http=http_class) as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        writer.write(head.encode() + line + b"\r\n\r\n")
        writer.write(part if is_declared else b"%x\r\n%s\r\n" % (len(part), part))
        answer = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"A body has 16384 bytes at most" in answer
        writer.close()
        await expect_the_board(served)


@HTTP_CLASSES
async def test_fault_29_who_sends_a_huge_body_to_its_end_reads_the_answer(http_class: str) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    async with demo(http=http_class) as (_, http):
        answer = await http.post("/notifications", content=parts(), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        body = {"type": "info", "message": "x" * 200}
        assert (await http.post("/notifications", json=body)).status_code == 201


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate.__init__, "__defaults__", (gate.MAX_BODY_BYTES, 0.05))
    async with demo() as (served, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /notifications HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n{")
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_who_leaves_in_the_middle_of_a_body_publishes_nothing() -> None:
    """Even where what came is a whole notification."""
    content = b'{"type": "info", "message": "half"}'
    async with demo() as (served, _):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"POST /notifications HTTP/1.1\r\nHost: here\r\n")
        writer.write(b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n" + content)
        await writer.drain()
        writer.close()
        await expect_the_board(served)


SENDERS: list[tuple[dict[str, str], bool]] = [
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "http://127.0.0.1:1"}, False),
    ({"Origin": "http://["}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "OURS"}, False),
    ({"Origin": "OURS"}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "OURS"}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://a.proxy.renamed.us"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({}, True),
]
"""Headers of a request, and whether it may change something."""


@pytest.mark.parametrize("path", ["/notifications", "/notifications/samples/info"])
async def test_fault_29_a_foreign_page_changes_nothing(path: str) -> None:
    async with demo() as (served, http):
        for headers, may in SENDERS:
            sent = {name: text.replace("OURS", served.http("")) for name, text in headers.items()}
            body = {"type": "info", "message": "hello"}
            answer = await http.post(path, json=body, headers=sent)
            if may:
                assert answer.is_success, headers
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")
        async with served.connect("/ws/notifications") as newcomer:
            recent = await next_of(newcomer, "recent")
            assert len(recent["notifications"]) == sum(may for _, may in SENDERS)


async def test_fault_29_every_route_that_takes_more_than_get_is_behind_the_gate() -> None:
    """Whatever the route: a foreign page is refused before anybody looks at what it asks for."""
    async with demo() as (_, http):
        for path in [
            *PAGES,
            *ALL_SOCKETS,
            "/",
            "/stats",
            "/healthz",
            "/static/style.css",
            "/nothing",
        ]:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                answer = await http.request(
                    method, path, headers={"Origin": "https://evil.example"}
                )
                assert answer.status_code == 403, f"{method} {path}"


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ('{"type"', '"online","count":99,"names":[{"name":"nobody","times":99}]}'),
        ('{"type":"error"', ',"message":"forged"}'),
        ('x","type":"online","count":99,"z":"', "y"),
        ("ann: hello\n{", '"type":"online","count":99}'),
        ("ann", '{"type":"online","room":"lobby","count":99,"names":[]}'),
        ("ann", '\n{"type":"entered","room":"garden"}'),
        ("ann", '{"type":"server","run":"forged"}'),
    ],
)
@pytest.mark.parametrize("path", ["/ws", "/ws/chat"])
async def test_fault_29_no_name_and_no_text_looks_like_a_message_of_the_server(
    path: str, name: str, text: str, native: bool
) -> None:
    async with (
        demo(native=native) as (served, _),
        served.connect(f"{path}?username=watcher") as watcher,
        served.connect(f"{path}?username={quote(name)}") as liar,
    ):
        await liar.send(text)
        said = await next_of(watcher, "said")
        assert (said["name"], said["text"]) == (clean_name(name), text.strip())
        await liar.send("the end")
        heard: list[dict[str, Any]] = []
        while not heard or heard[-1].get("text") != "the end":
            raw = await asyncio.wait_for(watcher.recv(), PATIENCE_S)
            heard.append(json.loads(raw, parse_constant=no_constant))
        assert {message["type"] for message in heard} <= {"said", "online", "joined"}
        assert all(message.get("count", 2) == 2 for message in heard)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("path", SOCKETS)
async def test_no_message_ends_a_socket_or_harms_newcomers(path: str, native: bool) -> None:
    """Each is answered, taken as text or ignored; then the socket works, and newcomers are greeted."""
    messages: list[str | bytes] = ["", "null", "[]", "{", '{"type": 1}', "\x00\u202e\ud7ff", b""]
    messages += [b"\xff", '{"type": "enter"}', '{"type": "enter", "room": "\\ud800"}']
    messages += ['{"type": "enter", "room": ' + "[" * 400, '{"type": "move", "x": 1e999, "y": 0}']
    messages += ['{"type": "noise", "count": true}', "[" * 500]
    async with demo(native=native) as (served, http):
        for message in messages:
            async with served.connect(path) as sender:
                await sender.send(message)
                assert await asyncio.wait_for(await sender.ping(), PATIENCE_S) >= 0
        async with served.connect(path) as newcomer:
            await next_of(newcomer, "server")
            assert await asyncio.wait_for(await newcomer.ping(), PATIENCE_S) >= 0
        stats = (await http.get("/stats")).json()
        assert {counts["handler_errors"] for counts in stats.values()} == {0}


@pytest.mark.parametrize("path", ["/ws", "/ws/chat"])
async def test_a_line_that_would_weigh_on_every_newcomer_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_MAX_MESSAGE_BYTES", "1MiB")
    async with demo() as (served, _), served.connect(f"{path}?username=ann") as ann:
        await ann.send("x" * 900_000)
        assert (await next_of(ann, "error"))["code"] == "too_long"
        await ann.send("x" * 1000)
        assert (await next_of(ann, "said"))["text"] == "x" * 1000


async def test_noise_is_limited_in_number_too() -> None:
    async with demo() as (served, _), served.connect("/ws/monitor") as socket:
        for _ in range(20):
            await socket.send('{"type": "noise", "count": 1}')
        assert (await next_of(socket, "error"))["code"] == "too_many_messages"


async def test_who_publishes_while_no_hub_runs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot(*arguments: Any, **options: Any) -> None:
        raise HubNotRunning("the hub has ended")

    monkeypatch.setattr("hubbub.hub.room.Room.publish", cannot)
    async with demo() as (_, http):
        answer = await http.post("/notifications", json={"type": "info", "message": "hello"})
        assert (answer.status_code, answer.json()) == (503, {"error": "the hub has ended"})


async def test_fault_30_every_page_learns_which_run_of_the_server_it_meets() -> None:
    """So that it can keep what it shows when a server that was restarted knows nothing of it."""
    runs: list[str] = []
    for _ in range(2):
        async with demo() as (served, _http):
            for path in SOCKETS:
                for _ in range(2):
                    async with served.connect(path) as socket:
                        first = json.loads((await take(socket, 1))[0])
                        assert first["type"] == "server"
                        runs.append(first["run"])
    assert len(set(runs)) == 2 * len(SOCKETS)
    assert runs[::2] == runs[1::2]


async def test_fault_30_lines_are_numbered_so_that_none_is_shown_twice() -> None:
    async with demo() as (served, http), served.connect("/ws/chat?username=ann") as ann:
        joined = await next_of(ann, "joined")
        await ann.send("hello")
        said = await next_of(ann, "said")
        assert said["number"] == joined["number"] + 1
        async with served.connect("/ws/chat") as bob:
            assert (await next_of(bob, "log"))["lines"] == [joined | {"text": ""}, said]
        await http.post("/notifications", json={"type": "info", "message": "one"})
        await http.post("/notifications/samples/info")
        async with served.connect("/ws/notifications") as late:
            recent = (await next_of(late, "recent"))["notifications"]
            assert [kept["number"] for kept in recent] == [1, 2]


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


def test_the_command_says_what_to_install_where_there_is_no_starlette() -> None:
    hide = "import sys; sys.modules['starlette'] = None; from hubbub.cli import main; "
    command = [sys.executable, "-c", hide + "main(['demo', '--port', '0'])"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: starlette is not installed: run  pip install")


async def test_the_module_has_the_application() -> None:
    from hubbub.demo.app import app

    assert [getattr(route, "path", None) for route in app.routes[:1]] == ["/"]
