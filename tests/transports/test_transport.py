"""The contract of a transport: all implementations have its methods, and its obligations are said."""

from __future__ import annotations

import inspect
import re

import pytest

from hubbub.hub.session import ClientSession
from hubbub.testing import MemoryTransport
from hubbub.transports.asgi import ASGITransport
from hubbub.transports.transport import Session, Transport
from hubbub.transports.uvicorn import NativeTransport
from places import SOURCE

METHODS = [name for name, _ in inspect.getmembers(Transport, inspect.isfunction) if name[0] != "_"]
MOST_METHODS = 8
MOST_SESSION_METHODS = 11


def test_the_contract_is_small_and_says_what_is_owed() -> None:
    assert len(METHODS) <= MOST_METHODS
    for name in METHODS:
        assert inspect.getdoc(getattr(Transport, name)), name
    assert set(inspect.get_annotations(Transport)) == {"writable", "write_wire", "deflates"}


@pytest.mark.parametrize("implementation", [ASGITransport, NativeTransport, MemoryTransport])
@pytest.mark.parametrize("name", METHODS)
def test_every_implementation_has_every_method_with_the_same_arguments(
    implementation: type, name: str
) -> None:
    owed = inspect.signature(getattr(Transport, name))
    given = inspect.signature(getattr(implementation, name))
    assert list(given.parameters) == list(owed.parameters)


OWED_TO = [name for name, _ in inspect.getmembers(Session) if name[0] != "_"]


def test_the_sessions_half_of_the_contract_is_small_too_and_its_one_implementation_has_it() -> None:
    attributes = set(inspect.get_annotations(Session))
    assert attributes == {"last_seen", "limits", "context"}
    assert len(OWED_TO) <= MOST_SESSION_METHODS
    for name in OWED_TO:
        assert inspect.getdoc(getattr(Session, name)), name
    for name in (*OWED_TO, *attributes):
        assert hasattr(ClientSession, name), name


@pytest.mark.parametrize("module", ["asgi", "uvicorn", "uvicorn_protocol"])
def test_transports_name_nothing_of_the_hub_but_the_session(module: str) -> None:
    """That they import nothing of it, `tests/house` proves; these names it would be reached by."""
    source = (SOURCE / "transports" / f"{module}.py").read_text(encoding="utf-8")
    reached = set(re.findall(r"\bsession\.(\w+)", source))
    assert reached <= {*OWED_TO, "last_seen", "limits", "context"}
    assert not re.search(r"\b(hub|client|registry)\.\w+\(", source)
