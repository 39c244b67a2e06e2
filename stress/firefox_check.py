"""A real Firefox against the native transport: a page talks to the echo and says how it went.

What must not live here: what the other clients do (`tests/stress/test_real_clients.py`). `make
conformance` runs it. No driver is needed: the page reports over the socket.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from hubbub import Client, Close, Hub, Protocol

COMMANDS = ("firefox-esr", "firefox")
PATIENCE_S = 120.0
"""How long Firefox may take, its first start with a new profile included."""

PAGE = """<!doctype html><meta charset="utf-8"><title>echo</title><script type="module">
const messages = ["h\u00e9llo \u20ac", Uint8Array.from({ length: 256 }, (_, i) => i), "", "a".repeat(70000)];
const socket = new WebSocket(`ws://${location.host}/ws`);
socket.binaryType = "arraybuffer";
const wrong = [];
socket.onopen = async () => {
  for (const message of messages) {
    const answer = new Promise((resolve) => (socket.onmessage = (event) => resolve(event.data)));
    socket.send(message);
    const got = await answer;
    const plain = (value) => (typeof value === "string" ? value : new Uint8Array(value).join());
    if (plain(got) !== plain(message)) wrong.push(plain(message).slice(0, 20));
  }
  socket.close(wrong.length ? 4002 : 4001, navigator.userAgent.split(" ").at(-1));
};
</script>
"""
PREFERENCES = """\
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage_override.mstone", "ignore");
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
user_pref("app.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
"""


def firefox() -> str | None:
    """Return the path of Firefox; None without one."""
    return next((path for name in COMMANDS if (path := shutil.which(name))), None)


def echo_hub() -> tuple[Hub, asyncio.Future[Close]]:
    """Return a hub that echoes, and how its first client will close."""
    hub = Hub(max_message_bytes=100_000)
    closed: asyncio.Future[Close] = asyncio.get_running_loop().create_future()

    @hub.on_message
    def echo(client: Client, message: str | bytes) -> None:
        client.send(message)

    @hub.on_disconnect
    def gone(client: Client, close: Close) -> None:
        if not closed.done():
            closed.set_result(close)

    return hub, closed


async def site(scope: Any, receive: Any, send: Any) -> None:
    """Serve the page, whatever is asked for."""
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE.encode()})


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """Serve `app` on a free port; yield the port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws=Protocol, log_level="warning")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        if task.done():
            task.result()
            raise RuntimeError("the server did not start")
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def check(command: str) -> Close:
    """Let Firefox open the page; return how it closed. Raises `TimeoutError` when it does not."""
    hub, closed = echo_hub()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        (Path(profile) / "user.js").write_text(PREFERENCES)
        async with served(hub.mount(site)) as port:
            process = await asyncio.create_subprocess_exec(
                *(command, "--headless", "--no-remote", "--profile", profile),
                f"http://127.0.0.1:{port}/",
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                return await asyncio.wait_for(closed, PATIENCE_S)
            finally:
                process.kill()
                await process.wait()


def main() -> int:
    """Return the exit status: good only if Firefox said that all came back as it went."""
    command = firefox()
    if command is None:
        print("Firefox is missing: install it (Debian: firefox-esr)", file=sys.stderr)
        return 1
    try:
        close = asyncio.run(check(command))
    except TimeoutError:
        print(f"Firefox did not finish within {PATIENCE_S:g} s", file=sys.stderr)
        return 1
    print(f"Firefox ({close.reason}): closed with {close.code}")
    return 0 if close.code == 4001 and not close.by_server else 1


if __name__ == "__main__":
    sys.exit(main())
