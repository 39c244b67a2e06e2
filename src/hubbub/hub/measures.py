"""Measures: the table of what a hub tells a monitoring system: name, kind, meaning, and where the number is.

What must not live here: a number of its own (each has one owner, which is asked when somebody looks), and
how the numbers are written (`asgi.metrics`). The names and units follow Prometheus' rules; the page of
metrics is written from this table. A new counter of `stats` is a new row here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..stats import Histogram, process_stats
from .core import history_facts
from .lifecycle import State
from .runtime import NOTHING_KNOWN, broker_name

if TYPE_CHECKING:
    from .core import Core

Values = Mapping[tuple[str, ...], float | Histogram]
"""Numbers by the values of a measure's labels, in their order."""

Kind = Literal["gauge", "counter", "histogram"]


class Measure(NamedTuple):
    """One row of the table. `read` asks a hub; what it cannot know has no number.

    What `is_of_process` is the same whichever hub of a process is asked.
    """

    name: str
    kind: Kind
    text: str
    read: Callable[[Core], Values]
    labels: tuple[str, ...] = ()
    is_of_process: bool = False


def _one(read: Callable[[Core], float | Histogram | None]) -> Callable[[Core], Values]:
    """Read one number that has no labels; None: there is none."""

    def values(core: Core) -> Values:
        number = read(core)
        return {} if number is None else {(): number}

    return values


def _count(field: str) -> Callable[[Core], Values]:
    """Read a counter of `stats`."""
    return lambda core: {(): getattr(core.stats, field)}


def _counts(**fields: str) -> Callable[[Core], Values]:
    """Read several counters of `stats`, each under its own word."""
    return lambda core: {(word,): getattr(core.stats, field) for word, field in fields.items()}


def _words(field: str) -> Callable[[Core], Values]:
    """Read what `stats` counts by words."""
    return lambda core: {(word,): count for word, count in dict(getattr(core.stats, field)).items()}


def _closes(core: Core) -> Values:
    by = {"hub": dict(core.stats.closes), "peer": dict(core.stats.closes_by_peer)}
    return {(word, who): count for who, all_ in by.items() for word, count in all_.items()}


def _facts(core: Core) -> Mapping[str, Any]:
    runtime = core.lifecycle.runtime
    return NOTHING_KNOWN if runtime is None else runtime.facts()


_INFO = ("server", "transport", "http", "loop", "broker")


def _info(core: Core) -> Values:
    facts = {**_facts(core), "broker": broker_name(core.broker)}
    return {tuple(str(facts[name] or "") for name in _INFO): 1}


def _history(field: str) -> Callable[[Core], Values]:
    """Read what a broker says of the histories that it keeps in this process; others say nothing."""
    return _one(lambda core: history_facts(core.broker).get(field))


MEASURES: tuple[Measure, ...] = (
    # How it is now.
    Measure("hubbub_info", "gauge", "Always 1; what the hub runs on.", _info, _INFO),
    Measure(
        "hubbub_ready",
        "gauge",
        "1 while the hub takes clients, else 0: it has not started, drains, or has stopped.",
        _one(lambda core: core.lifecycle.state is State.RUNNING),
    ),
    Measure(
        "hubbub_draining",
        "gauge",
        "1 while the hub closes its clients for a shutdown, else 0.",
        _one(lambda core: core.lifecycle.is_draining),
    ),
    Measure(
        "hubbub_uptime_seconds",
        "gauge",
        "For how long the hub has run.",
        _one(lambda core: time.monotonic() - core.lifecycle.started_at),
    ),
    Measure(
        "hubbub_workers",
        "gauge",
        "How many processes take connections from this one's address, itself included.",
        _one(lambda core: _facts(core)["workers"]),
    ),
    Measure(
        "hubbub_clients",
        "gauge",
        "Clients that are connected.",
        _one(lambda core: len(core.registry.sessions)),
    ),
    Measure(
        "hubbub_handshakes_in_progress",
        "gauge",
        "Handshakes that are not answered yet, and connections that have sent no connect command.",
        _one(lambda core: core.admission.in_progress),
    ),
    Measure(
        "hubbub_rooms",
        "gauge",
        "Rooms that have members here.",
        _one(lambda core: len(core.registry.room_sizes())),
    ),
    Measure(
        "hubbub_room_members",
        "gauge",
        "Members of all these rooms, one for each client and room.",
        _one(lambda core: sum(core.registry.room_sizes().values())),
    ),
    Measure(
        "hubbub_slow_clients",
        "gauge",
        "Clients for whom something waits, since their socket takes nothing.",
        _one(lambda core: core.liveness.slow_count),
    ),
    Measure(
        "hubbub_outbox_bytes",
        "gauge",
        "What waits for these clients, without the kernel's and the server's own buffers.",
        _one(lambda core: core.liveness.outbox_bytes),
    ),
    Measure(
        "hubbub_handlers_running",
        "gauge",
        "Handlers that wait for something and have not returned.",
        _one(lambda core: len(core.lifecycle.tasks)),
    ),
    Measure(
        "hubbub_presence_rooms",
        "gauge",
        "Rooms with presence that this process has to do with.",
        _one(lambda core: len(core.presence)),
    ),
    Measure(
        "hubbub_presence_members",
        "gauge",
        "Members of this process in these rooms, one for each client and room.",
        _one(lambda core: core.presence.member_count),
    ),
    Measure(
        "hubbub_history_rooms",
        "gauge",
        "Rooms of which the memory broker keeps something. Other brokers keep it elsewhere.",
        _history("history_rooms"),
    ),
    Measure(
        "hubbub_history_publications",
        "gauge",
        "Publications that the memory broker keeps.",
        _history("history_entries"),
    ),
    Measure(
        "hubbub_history_bytes",
        "gauge",
        "What they take, as history_max_bytes counts.",
        _history("history_bytes"),
    ),
    Measure(
        "hubbub_broker_up",
        "gauge",
        "1 while the broker takes publications, else 0.",
        _one(lambda core: core.condition.is_up),
    ),
    Measure(
        "hubbub_broker_lag_seconds",
        "gauge",
        "How long the broker's servers took for the last answer. Not of a broker without servers.",
        _one(lambda core: core.condition.lag_s),
    ),
    Measure(
        "hubbub_broker_waiting_messages",
        "gauge",
        "Publications that wait here until the broker takes them. Only of a broker that lets them wait.",
        _one(lambda core: core.condition.waiting),
    ),
    Measure(
        "hubbub_broker_waiting_bytes",
        "gauge",
        "Their bytes.",
        _one(lambda core: core.condition.waiting_bytes),
    ),
    # What has happened.
    Measure(
        "hubbub_connections_total",
        "counter",
        "Clients that have connected.",
        _count("total_clients"),
    ),
    Measure(
        "hubbub_closes_total",
        "counter",
        "Connections that have ended, by the name of the close code; `by` is hub or peer.",
        _closes,
        ("cause", "by"),
    ),
    Measure(
        "hubbub_refused_handshakes_total",
        "counter",
        "Handshakes that the hub refused, by the word in the answer.",
        _words("refused"),
        ("reason",),
    ),
    Measure(
        "hubbub_refused_gets_total",
        "counter",
        "Plain requests that asked why, as a browser does after a refusal.",
        _words("refused_gets"),
        ("reason",),
    ),
    Measure(
        "hubbub_handshakes_without_hub_total",
        "counter",
        "Of the process: requests refused before any hub saw them, for being slow or malformed.",
        lambda core: {
            ("slow",): process_stats.slow_handshakes,
            ("malformed",): process_stats.refused_handshakes,
        },
        ("reason",),
        is_of_process=True,
    ),
    Measure(
        "hubbub_joins_total", "counter", "How often a client came into a room.", _count("joins")
    ),
    Measure(
        "hubbub_received_messages_total",
        "counter",
        "Messages of clients.",
        _count("messages_in"),
    ),
    Measure(
        "hubbub_received_bytes_total",
        "counter",
        "Their payloads, inflated if need be.",
        _count("bytes_in"),
    ),
    Measure(
        "hubbub_rejected_messages_total",
        "counter",
        "Messages of clients that reached no handler: not valid, too many, or their client had gone.",
        _counts(invalid="invalid", rate_limited="rate_limited", client_gone="unhandled"),
        ("reason",),
    ),
    Measure(
        "hubbub_publications_total",
        "counter",
        "Publications that the broker has given this process to deliver, to however many.",
        _count("publications"),
    ),
    Measure(
        "hubbub_sent_messages_total",
        "counter",
        "Deliveries: messages that a client's socket has taken, one for each receiver.",
        _count("messages_out"),
    ),
    Measure(
        "hubbub_sent_bytes_total",
        "counter",
        "Their frames, with headers.",
        _count("bytes_out"),
    ),
    Measure(
        "hubbub_dropped_messages_total",
        "counter",
        "Messages that a client was owed and has not got: its outbox was full, or it had gone.",
        _counts(outbox_full="dropped", client_gone="undelivered"),
        ("reason",),
    ),
    Measure(
        "hubbub_sends_to_gone_total",
        "counter",
        "Sends of the application to clients that had gone already.",
        _count("sends_to_gone"),
    ),
    Measure(
        "hubbub_protocol_errors_total",
        "counter",
        "Connections closed for bytes that broke RFC 6455, a limit of it, or a dialect.",
        _count("protocol_errors"),
    ),
    Measure(
        "hubbub_handler_errors_total",
        "counter",
        "Handlers that have failed.",
        _count("handler_errors"),
    ),
    Measure(
        "hubbub_handlers_cancelled_total",
        "counter",
        "Handlers that were still running handler_grace_s after their client had gone.",
        _count("handlers_cancelled"),
    ),
    Measure(
        "hubbub_recoveries_total",
        "counter",
        "Who came back to a room with a position: whole (given all that was missed) or refused.",
        _counts(whole="recoveries", refused="recoveries_refused"),
        ("result",),
    ),
    Measure(
        "hubbub_broker_gaps_total",
        "counter",
        "How often the broker said that publications may have been lost on their way.",
        _count("broker_gaps"),
    ),
    Measure(
        "hubbub_api_calls_total",
        "counter",
        "Methods of the HTTP API that were called, those in a batch each.",
        _count("api_calls"),
    ),
    Measure(
        "hubbub_api_errors_total",
        "counter",
        "Those of them that were answered with an error.",
        _count("api_errors"),
    ),
    Measure(
        "hubbub_refused_api_requests_total",
        "counter",
        "Requests to the HTTP API that were refused, by the word in the answer.",
        _words("refused_api"),
        ("reason",),
    ),
    Measure(
        "hubbub_loop_stalls_total",
        "counter",
        "How often something blocked the event loop for a quarter of a second or more.",
        _count("loop_stalls"),
    ),
    # How long it took.
    Measure(
        "hubbub_delivery_lag_seconds",
        "histogram",
        "From the arrival of a publication in this process to the write of the last socket that takes something.",
        _count("delivery_lag"),
    ),
    Measure(
        "hubbub_publication_lag_seconds",
        "histogram",
        "From publication, in whatever process, to the write of the last socket here that takes something.",
        _count("publication_lag"),
    ),
    Measure(
        "hubbub_loop_lag_seconds",
        "histogram",
        "How late the event loop was, looked at ten times a second.",
        _count("loop_lag"),
    ),
)

COUNTED_AS_CLOSES = frozenset(
    {"slow_disconnects", "dead", "expired", "stale", "replaced", "stuck_handlers"}
)
"""Counters of `stats` that have no row of their own: `hubbub_closes_total` has them, by their codes."""
