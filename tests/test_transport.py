"""The contract of a transport: all implementations have its methods, and its obligations are said."""

from __future__ import annotations

import inspect

import pytest

from hubbub.testing import MemoryTransport
from hubbub.transport import Transport
from hubbub.transport_asgi import PortableTransport
from hubbub.transport_uvicorn import NativeTransport

METHODS = [name for name, _ in inspect.getmembers(Transport, inspect.isfunction) if name[0] != "_"]
MOST_METHODS = 8


def test_the_contract_is_small_and_says_what_is_owed() -> None:
    assert len(METHODS) <= MOST_METHODS
    for name in METHODS:
        assert inspect.getdoc(getattr(Transport, name)), name
    assert set(inspect.get_annotations(Transport)) == {"writable", "raw_write", "deflates"}


@pytest.mark.parametrize("implementation", [PortableTransport, NativeTransport, MemoryTransport])
@pytest.mark.parametrize("name", METHODS)
def test_every_implementation_has_every_method_with_the_same_arguments(
    implementation: type, name: str
) -> None:
    owed = inspect.signature(getattr(Transport, name))
    given = inspect.signature(getattr(implementation, name))
    assert list(given.parameters) == list(owed.parameters)
