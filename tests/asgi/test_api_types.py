"""The types of the HTTP API: each request can be read from JSON, each result written, and what is unknown passed over."""

from __future__ import annotations

import inspect

import msgspec
import pytest
from msgspec import Raw, Struct

from hubbub.asgi import api_types
from hubbub.asgi.api_methods import METHODS


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_request_takes_what_it_knows_and_passes_over_the_rest(name: str) -> None:
    fields = {
        "channel": "a",
        "channels": ["a"],
        "user": "ann",
        "data": {"n": 1},
        "commands": [{"info": {}}],
        "new_in_2030": True,
    }
    found = msgspec.json.decode(msgspec.json.encode(fields), type=METHODS[name].request)
    for field in found.__struct_fields__:
        value = getattr(found, field)
        if field in fields and not isinstance(value, Raw) and field != "commands":
            assert value == fields[field]


def test_every_type_says_what_it_is() -> None:
    found = [each for _, each in inspect.getmembers(api_types, inspect.isclass)]
    own = [each for each in found if each.__module__ == api_types.__name__]
    assert len(own) > 20
    assert all(issubclass(each, Struct) for each in own)
    assert all(each.__doc__ and each.__doc__.strip().endswith(".") for each in own)


def test_what_a_room_without_history_answers_is_empty() -> None:
    assert msgspec.json.encode(api_types.PublishResult()) == b"{}"
    reply = api_types.PublishReply(api_types.PublishResult(1, "e"))
    assert msgspec.json.encode(reply) == b'{"result":{"offset":1,"epoch":"e"}}'
