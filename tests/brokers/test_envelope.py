"""Envelope: what a publication carries comes out again, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import Frame, Position, Publication
from hubbub.brokers.broker import Control
from hubbub.brokers.envelope import (
    pack,
    packed_size,
    publication_of,
    seal,
    seal_control,
    unpack,
    unseal,
    unseal_control,
)
from hubbub.wire.publication import Kind

TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.binary(),
    st.booleans(),
    TEXT,
    TEXT,
    TEXT,
    st.sampled_from(Kind),
    st.none() | st.integers(0, 2**50),
)
def test_what_is_put_in_comes_out(
    data: bytes,
    is_text: bool,
    exclude: str | None,
    key: str | None,
    origin: str | None,
    kind: Kind,
    time_ms: int | None,
) -> None:
    sent = Publication(
        "red", Frame(data, is_text), exclude, key=key, kind=kind, origin=origin, time_ms=time_ms
    )
    envelope = unseal(seal(sent, "me", 7))
    got = publication_of(envelope, "red", Position(3, "e"))
    assert (envelope.sender, envelope.number, got.position) == ("me", 7, Position(3, "e"))
    for name in ("room", "data", "is_text", "exclude", "key", "kind", "origin", "time_ms"):
        assert getattr(got, name) == getattr(sent, name)


@given(st.binary())
def test_anything_else_is_a_value_error(data: bytes) -> None:
    for read in (unseal, unseal_control):
        try:
            read(data)
        except ValueError:
            continue
        assert data


def test_an_unknown_kind_is_a_value_error() -> None:
    sealed = bytearray(seal(Publication("red", Frame(b"", True)), "me", 1))
    place = sealed.index(b"\xc4\x00") + 3
    sealed[place] = 9
    with pytest.raises(ValueError, match="unknown kind"):
        unseal(bytes(sealed))


def test_a_control_message_comes_out() -> None:
    control = Control("kick", "me", {"client": "x", "code": 3503}, "you")
    assert unseal_control(seal_control(control)) == control


def test_a_run_is_packed_and_unpacked() -> None:
    for run in ([], [b""], [b"1", b"", b"\xff:2:", b"x" * 1000]):
        assert unpack(pack(run)) == run
        assert sum(packed_size(len(each)) for each in run) == len(pack(run))
    for wrong in (b"x", b":", b"3:ab", b"-1:a", b"1:ab", b"1:a2"):
        with pytest.raises(ValueError):  # noqa: PT011
            unpack(wrong)
