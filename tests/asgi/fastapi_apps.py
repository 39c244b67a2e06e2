"""What the tests of FastAPI share: its log, and requests."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import pytest
from fastapi import HTTPException, Query
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response

from serving import PATIENCE_S, Served


async def denial(server: Served, path: str = "/ws", **headers: str) -> Response:
    """Return how a handshake was refused."""
    with pytest.raises(InvalidStatus) as caught:
        await server.connect(path, additional_headers=headers)
    return caught.value.response


async def end_of(client: ClientConnection) -> int | None:
    """Wait for the end of a connection; return the close code that was received."""
    try:
        while True:
            await asyncio.wait_for(client.recv(), PATIENCE_S)
    except ConnectionClosed as end:
        return None if end.rcvd is None else end.rcvd.code


def listen_to_uvicorn(caplog: pytest.LogCaptureFixture) -> None:
    """Collect the log of uvicorn, whatever an earlier test's server did to its loggers."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        caplog.set_level(logging.INFO, name)


# Dependencies


def check_token(token: Annotated[str, Query()] = "") -> str:
    if token != "good":
        raise HTTPException(401, {"why": "a token is missing"}, headers={"X-Why": "token"})
    return token
