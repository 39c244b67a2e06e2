"""Stats: plain counters of one process, and their snapshot.

What must not live here: gauges that others own (who is connected, which rooms there are); `core`
adds those. Written by the hub's modules on the event loop's thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from .errors import close_word

MAX_WORDS = 100
"""How many reasons of refusals are told apart."""
OTHER = "other"

BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""The upper bounds of a histogram's buckets, in seconds; above the last there is one more bucket."""


class Histogram:
    """How many durations, in seconds, fell into each bucket, and their sum.

    `counts` has one number for each of `BOUNDS_S`, its own bound included, and one for all above.
    """

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(BOUNDS_S) + 1)
        self.sum_s: float = 0.0

    def note(self, seconds: float, times: int = 1) -> None:
        """Count a duration, `times` times."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += times
        self.sum_s += seconds * times

    def snapshot(self) -> dict[str, float]:
        """Return how many there were, and their sum, as JSON can carry it."""
        return {"count": sum(self.counts), "sum_s": round(self.sum_s, 6)}


@dataclass(slots=True)
class Stats:
    """Counters since the hub was made. All count events, except the `bytes_` ones.

    `bytes_in` counts message payloads, inflated if need be; `bytes_out` whole frames with their headers, as
    they go to the client. Each message that a client was owed is counted once: in `messages_out` when its
    transport has taken it, in `dropped` when its outbox was full, in `undelivered` when its connection ended
    before. `handlers_cancelled` counts handlers that were still running `handler_grace_s` after their client
    had gone, `unhandled` messages that came whole and that no handler saw, since their client had gone,
    `broker_gaps` how often the broker said that it may have lost publications, `recoveries` how often who came
    back to a room got all that it had missed, `recoveries_refused` how often that was not kept any more,
    `publications` what the broker gave this process to deliver, `joins` how often a client came into a room,
    `stale` connections that sent no connect command in time, `stuck_handlers` clients that were closed with
    1013, since their inbox was full and no handler of theirs ended. `api_calls` are methods of the HTTP API
    that were called, those in a batch each, `api_errors` those of them that were answered with an error.
    """

    total_clients: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dropped: int = 0
    undelivered: int = 0
    slow_disconnects: int = 0
    dead: int = 0
    expired: int = 0
    stale: int = 0
    replaced: int = 0
    invalid: int = 0
    protocol_errors: int = 0
    rate_limited: int = 0
    handler_errors: int = 0
    handlers_cancelled: int = 0
    stuck_handlers: int = 0
    unhandled: int = 0
    loop_stalls: int = 0
    api_calls: int = 0
    api_errors: int = 0
    broker_gaps: int = 0
    sends_to_gone: int = 0
    recoveries: int = 0
    recoveries_refused: int = 0
    publications: int = 0
    joins: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Refused handshakes, by the word that says why."""
    refused_gets: dict[str, int] = field(default_factory=dict)
    """Plain GETs that asked why, as a browser does after a refusal, by the same words."""
    refused_api: dict[str, int] = field(default_factory=dict)
    """Requests of the HTTP API that were not carried out at all, by the word that says why."""
    closes: dict[str, int] = field(default_factory=dict)
    """Connections that the hub closed, by the name of the code (`errors.close_word`)."""
    closes_by_peer: dict[str, int] = field(default_factory=dict)
    """Connections that ended otherwise: by a close frame of the client, or without one."""
    delivery_lag: Histogram = field(default_factory=Histogram)
    """From the first publication of a turn of the event loop, or send to one client, until all of that
    turn are written to the sockets that take something. Each of them counts; see `hub.fanout.LAG_SAMPLE`."""
    publication_lag: Histogram = field(default_factory=Histogram)
    """From each publication of such a turn, in whatever process it was, until then. Between processes by both their
    clocks, to a millisecond; where they differ, never less than this process took (see `hub.lags`)."""
    loop_lag: Histogram = field(default_factory=Histogram)
    """How late a timer of the event loop was that is due ten times a second."""

    def end(self, code: int, *, by_server: bool) -> None:
        """Count the end of a connection."""
        counts = self.closes if by_server else self.closes_by_peer
        word = close_word(code)
        counts[word] = counts.get(word, 0) + 1

    def refuse_api(self, code: str) -> None:
        """Count a request of the HTTP API that was refused. The words are the hub's own."""
        self.refused_api[code] = self.refused_api.get(code, 0) + 1

    def refuse(self, code: str, *, is_get: bool = False) -> None:
        """Count a refused handshake, or a GET, under the word that says why.

        An application may make words of what clients send; from `MAX_WORDS` on, new ones count as
        `OTHER`.
        """
        counts = self.refused_gets if is_get else self.refused
        if code not in counts and len(counts) >= MAX_WORDS:
            code = OTHER
        counts[code] = counts.get(code, 0) + 1

    def snapshot(self) -> dict[str, object]:
        """Return the counters as a dictionary that JSON can carry."""
        return {name: _as_json(getattr(self, name)) for name in self.__slots__}


def _as_json(value: object) -> object:
    if isinstance(value, Histogram):
        return value.snapshot()
    return dict(value) if isinstance(value, dict) else value


@dataclass(slots=True)
class ProcessStats:
    """Counters of what comes before any hub: the same in the stats of every hub of a process."""

    slow_handshakes: int = 0
    """Connections that `hubbub.HttpProtocol` cut, since they sent no whole request in time; and
    handshakes that `hubbub.Protocol` refused, since the application did not answer in time."""
    refused_handshakes: int = 0
    """Requests that `hubbub.Protocol` and `hubbub.HttpProtocol` refused before any application saw
    them: the head was too large, or broke RFC 9112 or RFC 6455."""


process_stats: ProcessStats = ProcessStats()
