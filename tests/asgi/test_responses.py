"""Responses: answers as ASGI events, and the files of the JavaScript client."""

from __future__ import annotations

import pytest

from asgi.handshakes import call
from hubbub import Hub
from hubbub.asgi.responses import STATIC_FILES, static_file, without_framing

pytestmark = pytest.mark.anyio


async def test_a_server_without_denial_responses_is_told_to_close() -> None:
    """It answers the handshake with a bare 403; daphne is one."""
    hub = Hub()
    hub.authenticate(lambda handshake: None)
    sent = await call(hub, "websocket.connect")
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "unauthorized"}]
    await hub.stop()


def test_the_files_are_those_of_the_package() -> None:
    assert set(STATIC_FILES) == {"hubbub.js", "hubbub.d.ts", "rooms.js", "rooms.d.ts"}
    for name in STATIC_FILES:
        assert static_file(name)


def test_a_refusal_says_itself_how_long_its_body_is() -> None:
    headers = {"Content-Length": "5", "transfer-encoding": "chunked", "Retry-After": "1"}
    assert without_framing(headers) == {"Retry-After": "1"}
