"""Stats: plain integer counters of one process, and their snapshot.

What must not live here: gauges that others own (who is connected, which rooms there are); `core`
adds those. Written by the hub's modules on the event loop's thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_WORDS = 100
"""How many reasons of refusals are told apart."""
OTHER = "other"


@dataclass(slots=True)
class Stats:
    """Counters since the hub was made. All count events, except the `bytes_` ones.

    `bytes_in` counts message payloads, inflated if need be; `bytes_out` whole frames with their
    headers, as they go to the client. Each message that a client was owed is counted once: in
    `messages_out` when its transport has taken it, in `dropped` when its outbox was full, in
    `undelivered` when its connection ended before. `handlers_cancelled` counts handlers that
    were still running `handler_grace_s` after their client had gone, `unhandled` messages that came
    whole and that no handler saw, since their client had gone, `broker_gaps` how often the broker said that it may have lost publications, `recoveries` how often who came back to a room got all that it had missed, `recoveries_refused` how often that was not kept any more, `stale` connections that sent no connect command in time, `stuck_handlers` clients that were
    closed with 1013, since their inbox was full and no handler of theirs ended. `api_calls` are methods of the
    HTTP API that were called, those in a batch each, `api_errors` those of them that were answered with an error.
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
    refused: dict[str, int] = field(default_factory=dict)
    """Refused handshakes, by the word that says why."""
    refused_gets: dict[str, int] = field(default_factory=dict)
    """Plain GETs that asked why, as a browser does after a refusal, by the same words."""
    refused_api: dict[str, int] = field(default_factory=dict)
    """Requests of the HTTP API that were not carried out at all, by the word that says why."""

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
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: dict(v) if isinstance(v, dict) else v for name, v in values.items()}


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
