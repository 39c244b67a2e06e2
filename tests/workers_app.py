"""The application with which the tests see how many workers know of one another.

A module of its own, because servers import what they serve by name. It needs no framework, so that
many processes of it start quickly.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from hubbub import Client, Hub
from hubbub.hub import workers

workers.FIRST_LOOK_S = float(os.environ.get("WORKERS_APP_FIRST_LOOK_S", "0.05"))
workers.LAST_LOOK_S = 4 * workers.FIRST_LOOK_S

if os.environ.get("WORKERS_APP_LOG"):
    handler = logging.FileHandler(os.environ["WORKERS_APP_LOG"])
    handler.setFormatter(logging.Formatter("%(process)d %(levelname)s %(message)s"))
    logging.getLogger("hubbub").addHandler(handler)

hub = Hub(shutdown_timeout_s=1)


@hub.on_connect
def greet(client: Client) -> None:
    """Say which process has the client."""
    client.send(str(os.getpid()))


async def stats(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with the numbers of this process."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP here")
    body = json.dumps({"pid": os.getpid(), **hub.stats()}).encode()
    headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = hub.mount(stats)
