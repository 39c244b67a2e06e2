"""hubbub.js in Chromium against real hubs: what is refused on the way, and what becomes of messages.

What must not live here: the rows of refusals.json (test_refusals), the demo's pages (test_browser).
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from end_to_end.browser.processes import ServerProcess
from refusing import RefusingServer, ThreadServer

APP = """
from fastapi import FastAPI, WebSocket
from starlette.responses import HTMLResponse
from starlette.routing import Route

from hubbub import Hub

hub = Hub(max_message_bytes=4_000_000)
app = FastAPI()
app.include_router(hub.router("/ws"))
got = []


@hub.authenticate
def who(handshake):
    return None if "wrong" in handshake.query_string else "ann"


@hub.on_message
def took(client, message: bytes | str):
    got.append([type(message).__name__, len(message), str(message[:20])])


@app.websocket("/own")
async def own(websocket: WebSocket):
    await hub.attach(websocket)


@app.websocket("/explained")
async def explained(websocket: WebSocket):
    await hub.attach(websocket)


app.routes.append(Route("/explained", hub))


@app.get("/got")
def what_came():
    return got


@app.get("/page")
def page():
    return HTMLResponse("<!doctype html><title>page</title>")


@app.get("/based/page")
def based():
    return HTMLResponse("<!doctype html><base href='/'><title>based</title>")
"""

TRY_OUT = """
async ([module, url, options]) => {
  const { Hubbub } = await import(module);
  return new Promise((resolve) => {
    let attempts = 0;
    const hub = new Hubbub(url, { fixedDelayMs: 1, ...options });
    hub.on("close", () => {
      if (++attempts === 20) resolve({ attempts, state: hub.state });
    });
    hub.on("open", () => resolve({ state: "open", url: hub.socket.url }));
    hub.on("stop", ({ code, reason }) => resolve({ attempts, code, reason }));
  });
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "promises.py").write_text(APP)
    with ServerProcess("promises:app", folder / "server.log", folder) as server:
        yield server


class Proxy(ThreadServer):
    """A proxy in front of a server that changes the head of what comes, one request a connection."""

    def __init__(self, server: ServerProcess, change: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._server_port = server.port
        self._change = change

    def serve(self, peer: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._server_port)) as server:
            head = self._change(peer.recv(65536))
            server.sendall(
                re.sub(rb"(?i)\r\nconnection: keep-alive", b"\r\nConnection: close", head)
            )
            while answer := server.recv(65536):
                peer.sendall(answer)


def rewrite_host(head: bytes) -> bytes:
    return re.sub(rb"(?i)\r\nhost: [^\r]+", b"\r\nHost: backend.internal:8000", head)


def drop_upgrade(head: bytes) -> bytes:
    head = re.sub(rb"(?i)\r\nupgrade: [^\r]+", b"", head)
    return re.sub(rb"(?i)\r\nconnection: upgrade", b"\r\nConnection: close", head)


def run(browser: Browser, page_url: str, script: str, *arguments: Any) -> Any:
    """Run a script in a page of its own."""
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(page_url)
        return page.evaluate(script, list(arguments))
    finally:
        context.close()


def try_out(browser: Browser, base: str, url: str, **options: Any) -> Any:
    return run(browser, f"{base}/page", TRY_OUT, "/ws/hubbub.js", url, options)


def test_fault_11_behind_a_proxy_that_rewrites_host_it_stops_and_says_why(
    browser: Browser,
    served: ServerProcess,
) -> None:
    with Proxy(served, rewrite_host) as proxy:
        found = try_out(browser, proxy.url, "/ws")
        assert (found["attempts"], found["code"]) == (1, 403)
        assert found["reason"] == (
            f"The origin {proxy.url} may not connect; add it to the setting 'origins'"
        )


def test_fault_11_a_page_of_a_foreign_origin_stops_and_says_why(
    browser: Browser,
    served: ServerProcess,
) -> None:
    with RefusingServer() as other:
        found = run(
            browser, f"{other.url}/page", TRY_OUT, "/hubbub.js", f"{served.url}/ws?wrong", {}
        )
    assert (found["attempts"], found["code"]) == (1, 403)
    assert found["reason"].startswith(f"The origin {other.url} may not connect")


def test_fault_11_behind_a_proxy_that_knows_no_websocket_it_stops(
    browser: Browser,
    served: ServerProcess,
) -> None:
    with Proxy(served, drop_upgrade) as proxy:
        found = try_out(browser, proxy.url, "/ws")
    assert (found["attempts"], found["code"]) == (5, 426)
    assert "does a proxy or a subprotocol prevent it" in found["reason"]


def test_fault_11_a_subprotocol_that_the_server_does_not_choose_stops(
    browser: Browser,
    served: ServerProcess,
) -> None:
    found = try_out(browser, served.url, "/ws", protocols=["chat.v9"])
    assert (found["attempts"], found["code"]) == (5, 426)


def test_fault_11_an_own_route_with_attach_stops(
    browser: Browser,
    served: ServerProcess,
) -> None:
    """A GET of it is a 404; with a route that answers it, the true reason is there at once."""
    assert try_out(browser, served.url, "/own")["state"] == "open"
    found = try_out(browser, served.url, "/own?wrong")
    assert (found["attempts"], found["code"], found["reason"]) == (5, 404, "HTTP 404")
    found = try_out(browser, served.url, "/explained?wrong")
    assert (found["attempts"], found["code"], found["reason"]) == (1, 401, "Unauthorized")
    assert try_out(browser, served.url, "/explained")["state"] == "open"


THROWS = """
async ([module, cases]) => {
  const { Hubbub } = await import(module);
  const events = [];
  for (const [url, options] of cases)
    try {
      new Hubbub(url, options).on("state", (state) => events.push([url, state]));
      events.push([url, "did not throw"]);
    } catch (error) {
      if (!(error instanceof TypeError)) events.push([url, String(error)]);
    }
  await new Promise((resolve) => setTimeout(resolve, 100));
  return events;
}
"""


def test_fault_11_wrong_arguments_throw_at_construction(
    browser: Browser,
    served: ServerProcess,
) -> None:
    urls = [
        "ftp://a.test/",
        "ws:/x",
        "wss:x",
        "http:/x",
        "ws://",
        "ws://a:99999",
        "mailto:a@b.test",
    ]
    cases = [[url, {}] for url in urls]
    cases += [["/ws", {"protocols": wrong}] for wrong in ("two words", ["a,b"], "", ["a", "a"])]
    cases += [["/ws", {"connectTimeoutMs": 0}], ["/ws", {"minDelay": 1}]]
    assert run(browser, f"{served.url}/page", THROWS, "/ws/hubbub.js", cases) == []


def test_fault_26_a_relative_url_honours_the_base_of_the_page(
    browser: Browser,
    served: ServerProcess,
) -> None:
    found = run(browser, f"{served.url}/based/page", TRY_OUT, "/ws/hubbub.js", "ws", {})
    assert found == {"state": "open", "url": served.url.replace("http", "ws") + "/ws"}


SEND_ALL = """
async ([module]) => {
  const { Hubbub } = await import(module);
  const frame = document.createElement("iframe");
  document.body.append(frame);
  const other = frame.contentWindow;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  new Uint8Array(memory.buffer).set([104, 105]);
  const hub = new Hubbub("/ws", { autoConnect: false });
  const sent = [
    hub.send("before connect()"),
    hub.send(other.Uint8Array.of(1, 2, 3).buffer),
    hub.send(other.Uint8Array.of(0, 1, 2).subarray(1)),
    hub.send(new other.Blob(["blob"])),
    hub.send(new other.File(["file!"], "f")),
    hub.send(memory.buffer),
    hub.send(new Uint8Array(memory.buffer, 0, 2)),
  ];
  const queued = hub.queued;
  hub.connect();
  await new Promise((resolve) => hub.on("open", resolve));
  hub.send(new other.Blob(["now"]));
  hub.send(memory.buffer);
  hub.send("x".repeat(3_000_000));
  hub.send("the last one");
  hub.close();
  return [sent, queued, hub.queued, hub.send("too late")];
}
"""


def test_fault_26_all_that_was_accepted_arrives(
    browser: Browser,
    served: ServerProcess,
) -> None:
    """Sent before connect(), of another realm, of shared memory, and right before close()."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served.url}/page")
    assert page.evaluate(SEND_ALL, ["/ws/hubbub.js"]) == [[True] * 7, 7, 0, False]
    deadline = time.monotonic() + 20
    while len(came := page.evaluate("fetch('/got').then((answer) => answer.json())")) < 11:
        assert time.monotonic() < deadline, came
        page.wait_for_timeout(50)
    context.close()
    wanted = [
        ("str", "before connect()"),
        ("bytes", str(b"\x01\x02\x03")),
        ("bytes", str(b"\x01\x02")),
        ("bytes", str(b"blob")),
        ("bytes", str(b"file!")),
        ("bytes", str(b"hi" + b"\0" * 18)),
        ("bytes", str(b"hi")),
        ("bytes", str(b"now")),
        ("bytes", str(b"hi" + b"\0" * 18)),
        ("str", "x" * 20),
        ("str", "the last one"),
    ]
    assert [(kind, start) for kind, _, start in came] == wanted
    assert [size for _, size, _ in came][5:] == [65536, 2, 3, 65536, 3_000_000, 12]


SEND_TO_THE_DEAF = """
async ([module, end]) => {
  const { Hubbub } = await import(module);
  const hub = new Hubbub("/deaf", { fixedDelayMs: 60_000 });
  await new Promise((resolve) => hub.on("open", resolve));
  const { socket } = hub;
  let dropped = 0;
  hub.on("drop", (count) => (dropped += count));
  const closed = new Promise((resolve) => socket.addEventListener("close", resolve));
  for (let n = 0; n < 50; n++) hub.send("x".repeat(1_000_000));
  if (end) hub[end]();
  await closed;
  const held = socket.bufferedAmount;
  const { queued } = hub;
  hub.close();
  return { dropped, held, queued };
}
"""


@pytest.mark.parametrize("end", ["", "close", "cut"])
def test_what_never_left_the_browser_is_reported(
    browser: Browser,
    end: str,
) -> None:
    with RefusingServer() as server:
        found = run(browser, f"{server.url}/page", SEND_TO_THE_DEAF, "/hubbub.js", end)
    assert found["held"] > 10_000_000, "the server took next to nothing"
    assert found["dropped"] == -(-found["held"] // 1_000_000)
    assert found["queued"] == 0
