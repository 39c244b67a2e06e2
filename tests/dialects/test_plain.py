"""The plain dialect: what the hub itself has to say to a client."""

from __future__ import annotations

import json

from hubbub import CommandError
from hubbub.dialects.plain import PlainDialect

plain = PlainDialect()


def test_a_request_for_a_new_token() -> None:
    frame = plain.refresh(29.98765)
    assert frame.is_text
    assert json.loads(frame.payload) == {"type": "refresh", "expires_in_s": 29.988}


def test_an_error_reply() -> None:
    frame = plain.error(CommandError("bad", "a sentence", temporary=True))
    assert frame.is_text
    assert json.loads(frame.payload) == {
        "type": "error",
        "code": "bad",
        "message": "a sentence",
        "temporary": True,
    }
