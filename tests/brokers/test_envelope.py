"""Envelope: what a publication carries comes out again, and what is none is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import ClientInfo, Frame, Position, Publication
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
from older_node import Before

TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
ANN = ClientInfo("c1", "ann", {"n": [1, None]}, "Ann")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=5,
)
PUBLISHERS = st.builds(ClientInfo, st.text("abc"), TEXT, JSON, JSON)


@given(
    st.binary(),
    st.booleans(),
    TEXT,
    TEXT,
    TEXT,
    st.sampled_from(Kind),
    st.none() | st.integers(0, 2**50),
    st.none() | PUBLISHERS,
)
def test_what_is_put_in_comes_out(
    data: bytes,
    is_text: bool,
    exclude: str | None,
    key: str | None,
    origin: str | None,
    kind: Kind,
    time_ms: int | None,
    publisher: ClientInfo | None,
) -> None:
    sent = Publication(
        "red",
        Frame(data, is_text),
        exclude,
        key=key,
        kind=kind,
        origin=origin,
        time_ms=time_ms,
        publisher=publisher,
    )
    envelope = unseal(seal(sent, "me", 7))
    got = publication_of(envelope, "red", Position(3, "e"))
    assert (envelope.sender, envelope.number, got.position) == ("me", 7, Position(3, "e"))
    carried = (
        "room",
        "data",
        "is_text",
        "exclude",
        "key",
        "kind",
        "origin",
        "time_ms",
        "publisher",
    )
    for name in carried:
        assert getattr(got, name) == getattr(sent, name)


def test_an_envelope_of_the_version_before_is_read_and_it_reads_ours() -> None:
    old = msgspec.msgpack.encode(Before("me", 7, b"hi", key="k", time_ms=5))
    got = publication_of(unseal(old), "red", None)
    assert (got.data, got.key, got.time_ms, got.publisher) == (b"hi", "k", 5, None)
    sent = Publication("red", Frame(b"hi", True), key="k", time_ms=5, publisher=ANN)
    ours = seal(sent, "me", 7)
    assert publication_of(unseal(ours), "red", None).publisher == ANN
    assert msgspec.msgpack.decode(ours, type=Before) == Before("me", 7, b"hi", key="k", time_ms=5)


def test_a_publisher_that_is_none_is_a_value_error() -> None:
    row = ["me", 1, b"", True, 0, None, None, None, None]
    every: list[Any] = [5, "ann", [], {"user": "ann"}, {"client": 5}]
    for wrong in every:
        with pytest.raises(ValueError, match=r"\$\[9\]"):
            unseal(msgspec.msgpack.encode([*row, wrong]))


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
