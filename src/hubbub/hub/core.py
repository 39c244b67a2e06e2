"""Core: the parts of one hub, and how they are wired. Nothing is decided here.

What must not live here: logic. A part gets the core, and finds the others through it; what a part
may ask of another is that one's public methods.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..brokers.broker import Broker, Condition, Control, Node, condition_of
from ..brokers.history import HistoryStore
from ..dialects.dialect import Dialect
from ..limits import TURN_INFLATED_BYTES, TurnBudget
from ..logs import RateLimitedLogger
from ..room_rules import SlowPolicy
from ..settings import Settings
from ..stats import Stats, process_stats
from ..transports.transport import TransportLimits
from ..turns import Turns
from ..wire.publication import Publication
from .access import Access
from .admission import Admission
from .client_infos import ClientInfos
from .commands import CommandDispatcher
from .connecting import Connecting
from .control import ControlPlane
from .dispatcher import Dispatcher
from .fanout import Fanout
from .first_message import FirstMessage
from .gaps import Gaps
from .handler_errors import HandlerErrors
from .handlers import Handlers
from .interest import Interest
from .joining import Joining
from .lifecycle import Lifecycle
from .liveness import LivenessMonitor
from .pings import Pings
from .presence import Presence
from .publishing import Publishing
from .rates import Rates
from .recovery import Recovery
from .registry import Registry
from .rules import Rules
from .runtime import NOTHING_KNOWN, broker_name, changed_settings
from .subscriptions import SubscriptionDeadlines
from .surveys import Surveys
from .user_actions import UserActions
from .variant import Variants
from .window import Window

if TYPE_CHECKING:
    from .hub import Hub

MOST_A_TURN = 16
"""How many clients have their turn at once. Of somebody who comes back to a room, with a hundred publications to
be given, there is some 0.2 ms of work."""


class Core:
    """The parts of one hub. Those that belong to one event loop are made anew by `reset`."""

    fanout: Fanout
    interest: Interest
    node_id: str
    limits: TransportLimits
    liveness: LivenessMonitor
    pings: Pings
    serves_clients: bool = True
    """False: this hub only publishes, and no other node has to know of it."""
    subscriptions: SubscriptionDeadlines
    turns: Turns
    window: Window

    def __init__(
        self, settings: Settings, broker: Broker, slow_policies: Mapping[str, SlowPolicy]
    ) -> None:
        self.settings: Settings = settings
        self.broker: Broker = broker
        self.clock: Callable[[], float] = time.monotonic
        self.stats: Stats = Stats()
        self.log: RateLimitedLogger = RateLimitedLogger(self.now)
        self.handlers: Handlers = Handlers()
        self.variants: Variants = Variants(settings.compression_min_bytes, self.log)
        self.lifecycle: Lifecycle = Lifecycle(self)
        self.rules: Rules = Rules(self)
        self.recovery: Recovery = Recovery(self)
        self.gaps: Gaps = Gaps(self)
        self.infos: ClientInfos = ClientInfos(self)
        self.presence: Presence = Presence(self)
        self.registry: Registry = Registry(self, slow_policies)
        self.joining: Joining = Joining(self)
        self.admission: Admission = Admission(
            settings,
            self.registry.sessions,
            lambda: self.lifecycle.is_draining,
            self.lifecycle.come_back_in_s,
        )
        self.publishing: Publishing = Publishing(self)
        self.access: Access = Access(self)
        self.control: ControlPlane = ControlPlane(self)
        self.user_actions: UserActions = UserActions(self)
        self.surveys: Surveys = Surveys(self)
        self.rates: Rates = Rates(self)
        self.handler_errors: HandlerErrors = HandlerErrors(self)
        self.dispatcher: Dispatcher = Dispatcher(self)
        self.first_message: FirstMessage = FirstMessage(self)
        self.connecting: Connecting = Connecting(self)
        self.commands: CommandDispatcher = CommandDispatcher(self)
        self.reset()

    def now(self) -> float:
        """Return the time in seconds, by whatever clock the hub has now."""
        return self.clock()

    def reset(self) -> None:
        """Make anew what belongs to one event loop, and forget what a dead one left behind."""
        settings = self.settings
        self.node_id = secrets.token_hex(8)
        self.admission.reset()
        self.registry.reset()
        self.recovery.reset()
        self.joining.reset()
        self.presence.reset()
        self.publishing.streaming.clear()
        self.window = Window(lambda: self.condition.is_up)
        self.interest = Interest(self)
        self.fanout = Fanout(self.stats, settings.slow_policy, self.lifecycle.schedule)
        self.limits = TransportLimits(
            settings.max_message_bytes,
            settings.write_timeout_s,
            settings.inbox_max_messages,
            settings.inbox_max_bytes,
            TurnBudget(TURN_INFLATED_BYTES),
            self.clock,
        )
        self._limits_of: dict[Dialect, TransportLimits] = {}
        self.liveness = LivenessMonitor(self)
        self.pings = Pings(self)
        self.subscriptions = SubscriptionDeadlines(self)
        self.turns = Turns(MOST_A_TURN)

    def limits_of(self, dialect: Dialect) -> TransportLimits:
        """Return the limits of a dialect's clients: where there is more in a message, it may be longer."""
        limits = self._limits_of.get(dialect, self.limits)
        size, more = limits.max_message_bytes, getattr(dialect, "envelope_bytes", 0)
        if limits is self.limits and size is not None and more:
            limits = dataclasses.replace(limits, max_message_bytes=size + more)
            self._limits_of[dialect] = limits
        return limits

    def new_node(self) -> Node:
        """Return what the broker is given: this process as a node of its cluster."""
        return HubNode(self)

    @property
    def condition(self) -> Condition:
        """How the broker is; away, where the hub does not run."""
        return condition_of(self.broker) if self.lifecycle.is_up else Condition("away")

    def snapshot(self) -> dict[str, Any]:
        """Return what this process knows of itself; see `Hub.stats`."""
        lifecycle, liveness = self.lifecycle, self.liveness
        condition = self.condition
        facts = NOTHING_KNOWN if lifecycle.runtime is None else lifecycle.runtime.facts()
        return {
            "clients": len(self.registry.sessions),
            "broadcast": len(self.fanout),
            "register": self.admission.in_progress,
            "rooms": len(self.registry.room_sizes()),
            "slow": liveness.slow_count,
            "handlers": len(lifecycle.tasks),
            "loop_lag_s": round(liveness.lag_s, 4),
            **self.stats.snapshot(),
            **history_facts(self.broker),
            "slow_handshakes": process_stats.slow_handshakes,
            "refused_handshakes": process_stats.refused_handshakes,
            "uptime_s": round(time.monotonic() - lifecycle.started_at, 3),
            **facts,
            "broker": broker_name(self.broker),
            "broker_state": condition.state,
            "broker_waiting": condition.waiting or 0,
            "state": lifecycle.state.value,
            "settings": changed_settings(self.settings),
        }


def history_facts(broker: Broker) -> dict[str, Any]:
    """Return what a broker says of the histories that it keeps in this process."""
    store = getattr(broker, "store", None)
    if not isinstance(store, HistoryStore):
        return {}
    return {
        "history_rooms": store.rooms,
        "history_entries": store.entries,
        "history_bytes": store.nbytes,
    }


class HubNode:
    """A hub as its broker sees it; see `brokers.broker.Node`. It is of one event loop, as its id is."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.id: str = core.node_id
        self.now: Callable[[], float] = core.now
        self.history_max_bytes: int = core.settings.history_max_bytes
        self.deliver: Callable[[Publication], int] = core.publishing.deliver
        self.handle_control: Callable[[Control], None] = core.control.handle_control

    def has_members(self, room: str) -> bool:
        """Tell whether clients of this process are in a room now."""
        return self._core.registry.room_of(room) is not None

    def note_gap(self, rooms: Sequence[str] | None) -> None:
        """Count that publications may have been lost, and see what is missing where it was kept."""
        core = self._core
        core.stats.broker_gaps += 1
        core.recovery.note_gap(rooms)
        if rooms is None and core.rules.are_shared:  # the broker may have forgotten them
            core.lifecycle.spawn(core.rules.share_again(), "share the rules")


def core_of(hub: Hub) -> Core:
    """Return the parts of a hub: for the endpoint, the test kit and tests."""
    return hub._core
