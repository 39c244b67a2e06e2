"""An echo application with wide limits, for the suite and the clients that test conformance.

What must not live here: starting servers (`autobahn_suite`), tests. A uvicorn process loads `app`:
`uvicorn stress.echo_app:app --ws hubbub:Protocol`.
"""

from __future__ import annotations

import os
from typing import Any

from hubbub import Client, Frame, Hub

LARGEST_BYTES = 64 * 1024 * 1024
"""More than four times what the suite's largest case sends."""

_limits: dict[str, Any] = {
    "max_message_bytes": LARGEST_BYTES,
    "outbox_max_bytes": 2 * LARGEST_BYTES,
    "outbox_max_entries": 100_000,
    "origins": "*",
    "compression": os.environ.get("ECHO_COMPRESSION", "off"),
}

hub = Hub(**_limits)


@hub.on_message
def echo(client: Client, message: Frame) -> None:
    """Send a message back as it came."""
    client.send(message)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answer 404 to whatever is not the socket."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


app = hub.mount(nothing)
