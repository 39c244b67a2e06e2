"""HTTP streaming and server-sent events before a hub, for tests: an ASGI application outside of it.

    POST /sse, POST /stream     the body is the client's first message; the answer is what the hub says
    POST /say?session=…         one more message of it, by the session that the answer's first header names

To the hub such a client is a WebSocket, by the events of ASGI: it needs no door of its own. What must not
live here: anything of the hub.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx

from serving import PATIENCE_S, Served

Event = MutableMapping[str, Any]
SESSION = "x-session"


def as_it_is(data: bytes) -> bytes:
    """Write a message whose dialect frames it itself."""
    return data


def as_server_sent(data: bytes) -> bytes:
    """Write a message as an event of `text/event-stream`."""
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


class Streaming:
    """See the module; `routes` says for each path of a stream which of the hub's it is, and how it is written."""

    def __init__(
        self, app: Any, routes: Mapping[str, tuple[str, str, Callable[[bytes], bytes]]]
    ) -> None:
        self._app = app
        self._routes = routes
        self._inboxes: dict[str, asyncio.Queue[Event]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a stream, take a message for one, or pass all else to the hub."""
        if scope["type"] == "http" and scope["path"] in self._routes:
            await self._stream(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/say":
            session = parse_qs(scope["query_string"].decode())["session"][0]
            await self._say(self._inboxes[session], receive, send)
        else:
            await self._app(scope, receive, send)

    async def _say(self, inbox: asyncio.Queue[Event], receive: Any, send: Any) -> None:
        inbox.put_nowait(message_of(await whole_body(receive)))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        path, kind, write = self._routes[scope["path"]]
        session, inbox = secrets.token_hex(8), asyncio.Queue[Event]()
        self._inboxes[session] = inbox
        inbox.put_nowait({"type": "websocket.connect"})
        inbox.put_nowait(message_of(await whole_body(receive)))
        headers = [(b"content-type", kind.encode()), (SESSION.encode(), session.encode())]

        async def put(event: Event) -> None:
            match event["type"]:
                case "websocket.accept":
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                case "websocket.send":
                    text = event.get("text")
                    data = event["bytes"] if text is None else text.encode()
                    await send(
                        {"type": "http.response.body", "body": write(data), "more_body": True}
                    )
                case "websocket.close":
                    why = json.dumps({"code": event["code"], "reason": event["reason"]}).encode()
                    end = b"event: close\n" + write(why) if write is as_server_sent else b""
                    await send({"type": "http.response.body", "body": end})
                case kind:
                    raise AssertionError(kind)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})

        copied = ("asgi", "http_version", "headers", "client", "server", "query_string")
        asked = {key: scope[key] for key in copied}
        asked |= {"type": "websocket", "scheme": "ws", "subprotocols": [], "root_path": ""}
        asked |= {"path": path, "raw_path": path.encode()}
        watching = asyncio.create_task(watch())
        try:
            await self._app(asked, inbox.get, put)
        finally:
            watching.cancel()
            del self._inboxes[session]


async def whole_body(receive: Any) -> bytes:
    """Return the body of a request."""
    body = b""
    while True:
        event = await receive()
        body += bytes(event.get("body", b""))
        if not event.get("more_body"):
            return body


def message_of(body: bytes) -> Event:
    """Return a body as a message: text if it begins as JSON does."""
    if body.startswith(b"{"):
        return {"type": "websocket.receive", "text": body.decode()}
    return {"type": "websocket.receive", "bytes": body}


class Stream:
    """A client's end of a stream. `data` is what has come."""

    def __init__(self, http: httpx.AsyncClient, response: httpx.Response, say_url: str) -> None:
        self.data = b""
        self.is_over = False
        self._http = http
        self._response = response
        self._say_url = say_url

    async def read(self) -> None:
        """Take what comes, until the end."""
        async for data in self._response.aiter_raw():
            self.data += data
        self.is_over = True

    async def say(self, data: bytes) -> None:
        """Send one more message."""
        answer = await self._http.post(self._say_url, content=data)
        assert answer.status_code == 204


@asynccontextmanager
async def stream(served: Served, path: str, first: bytes) -> AsyncIterator[Stream]:
    """Open a stream with its first message, and read it until the end of the block."""
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http,
        http.stream("POST", served.http(path), content=first) as response,
    ):
        say_url = served.http(f"/say?session={response.headers[SESSION]}")
        opened = Stream(http, response, say_url)
        reading = asyncio.create_task(opened.read())
        try:
            yield opened
        finally:
            reading.cancel()
            await asyncio.wait([reading])
