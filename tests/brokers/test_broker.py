"""The contract of a broker: what can be one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hubbub import Hub, MemoryBroker
from hubbub.brokers.broker import Condition, apart, as_broker, condition_of
from hubbub.brokers.valkey import ValkeyBroker


def test_what_has_the_verbs_is_a_broker() -> None:
    broker = MemoryBroker()
    assert as_broker(broker) is broker


def test_a_broker_that_says_nothing_of_itself_is_up() -> None:
    assert condition_of(MemoryBroker()) == Condition("up")
    assert condition_of(ValkeyBroker()) == Condition("away"), "it has not started"


@pytest.mark.parametrize(
    "wrong",
    [None, "redis://localhost", MemoryBroker, object()],
    ids=["None", "a URL", "a class", "an object"],
)
def test_what_has_not_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(TypeError, match="broker must be a Broker"):
        as_broker(wrong)
    if wrong is not None and not isinstance(wrong, str):
        with pytest.raises(TypeError, match="broker must be a Broker"):
            Hub(broker=wrong)  # type: ignore[arg-type]


def test_rooms_fail_together_unless_a_broker_says_otherwise() -> None:
    assert list(apart(MemoryBroker(), ["a", "b"])) == [["a", "b"]]

    class Parting(MemoryBroker):
        def apart(self, rooms: Sequence[str]) -> list[list[str]]:
            return [[room] for room in rooms]

    assert list(apart(Parting(), ["a", "b"])) == [["a"], ["b"]]
