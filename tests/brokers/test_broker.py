"""The contract of a broker: what can be one."""

from __future__ import annotations

import pytest

from hubbub import Hub, MemoryBroker
from hubbub.brokers.broker import BrokerState, as_broker, state_of


def test_what_has_the_verbs_is_a_broker() -> None:
    broker = MemoryBroker()
    assert as_broker(broker) is broker


@pytest.mark.parametrize(
    "wrong",
    [None, "redis://localhost", MemoryBroker, object()],
    ids=["None", "a URL", "a class", "an object"],
)
def test_what_has_not_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(TypeError, match="broker must be a Broker"):
        as_broker(wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match="broker must be a Broker"):
            Hub(broker=wrong)  # type: ignore[arg-type]


def test_a_broker_that_says_nothing_of_itself_is_taken_for_well() -> None:
    assert state_of(MemoryBroker()) == BrokerState(True)


def test_a_broker_may_say_how_it_is() -> None:
    class Telling(MemoryBroker):
        def state(self) -> BrokerState:
            return BrokerState(False, 0.5, 3, 30)

    assert state_of(Telling()) == BrokerState(False, 0.5, 3, 30)
