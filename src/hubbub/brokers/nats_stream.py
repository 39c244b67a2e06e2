"""A stream of JetStream: what is kept, and taken only from who knows what was kept last.

What must not live here: what the messages say (`nats_history`, `nats_presence`).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import BrokerUnavailable
from ..limits import printable
from .broker import CallRefused
from .nats_connection import Answer, Connection, NoRight, headers_of

_WRONG_LAST = {10071, 10164}
_NO_MESSAGE = 10037
_NO_STREAM = 10059
_NAME_TAKEN = 10058
_NO_JETSTREAM = {10039, 10076}
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
OLDEST_VERSION = (2, 11)
"""Which server is the first that can read many messages by one question, and forget each by its own time."""
MOST_A_READ = 200
"""How many messages one question reads at most."""
READS = 20
"""How often a copy of the stream that has not all messages yet is asked again."""
PAUSE_S = 0.05
"""How long to wait before that."""


class Stored(NamedTuple):
    """A message of a stream. `time_s` is when it was stored, in seconds by the server's clock (0: not known).
    `headers` are its writer's, without those that are for JetStream."""

    sequence: int
    data: bytes
    time_s: float = 0.0
    headers: Mapping[str, str] = _NO_HEADERS


class Refused(Exception):
    """Something was kept meanwhile: what was to follow the last message does not any more."""


class NoAnswer(BrokerUnavailable):
    """It is not known whether a message was kept."""


class NotNow(BrokerUnavailable):
    """A question has no answer, or a message was not kept; that may be otherwise in a moment."""


class State(NamedTuple):
    """When a stream was made, the number of its newest message, the server's time in seconds, and how many servers
    have the stream."""

    made: str
    last: int
    time_s: float
    replicas: int


class Stream:
    """A stream of an application. `connection` returns the present one, or raises `BrokerUnavailable`, as all
    methods do. Event loop only."""

    def __init__(self, connection: Callable[[], Connection], config: Mapping[str, Any]) -> None:
        self._connection = connection
        self._config = config
        self.name: str = config["name"]

    async def open(self, connection: Connection) -> State | None:
        """Make the stream if there is none; return its state. None: the server has no JetStream."""
        name = self.name
        answer = await _ask(connection, f"$JS.API.STREAM.INFO.{name}", {})
        if answer is not None and _code(answer) == _NO_STREAM:
            answer = await _ask(connection, f"$JS.API.STREAM.CREATE.{name}", self._config)
            if answer is not None and _code(answer) == _NAME_TAKEN:  # another was quicker
                answer = await _ask(connection, f"$JS.API.STREAM.INFO.{name}", {})
        if answer is None or _code(answer) in _NO_JETSTREAM:
            return None
        # Before a look at an answer that may lack what is read here.
        if connection.version < OLDEST_VERSION:
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise BrokerUnavailable(f"its server with JetStream is older than {oldest}")
        _refuse(answer)
        config, wanted = answer["config"], self._config
        for what in ("subjects", "republish", "allow_direct"):
            if config.get(what) != wanted[what]:
                raise BrokerUnavailable(f"its stream {name} is none of ours: its {what} differ")
        return _state_of(answer)

    async def add(
        self, subject: str, data: bytes, *, after: int | None, headers: Mapping[str, str]
    ) -> tuple[int, bool]:
        """Keep a message; return its number, and whether its `Nats-Msg-Id` was known already.

        `after` is the number of the subject's last message, 0 for none: with another it raises `Refused`. None:
        whatever that is. `NoAnswer` is raised where the message may have been kept.
        """
        if after is not None:
            headers = {**headers, "Nats-Expected-Last-Subject-Sequence": str(after)}
        connection = self._connection()
        try:
            (answer,) = await connection.ask(subject, data, headers)
        except (CallRefused, NoRight):
            raise  # it has not left, or went no further
        except Exception as error:
            raise NoAnswer(_why(error)) from error
        if answer.is_nobody:
            raise NotNow("the stream is gone, or JetStream has no quorum")
        body = json.loads(answer.data)
        if _code(body) in _WRONG_LAST:
            raise Refused
        _refuse(body)
        return int(body["seq"]), bool(body.get("duplicate"))

    async def last(self, subject: str) -> Stored | None:
        """Return the newest message of a subject, as the stream's leader knows it."""
        return await self._get({"last_by_subj": subject})

    async def next(self, subject: str, first: int) -> Stored | None:
        """Return the oldest message of a subject whose number is `first` or more."""
        return await self._get({"next_by_subj": subject, "seq": first})

    async def one(self, sequence: int) -> Stored | None:
        """Return a message by its number."""
        return await self._get({"seq": sequence})

    async def read(self, subject: str, first: int, last: int) -> list[Stored]:
        """Return the messages of a subject with numbers from `first` up to `last`, the oldest first.

        `last` is there. Any copy of the stream may answer; one that has it not yet is asked again.
        """
        found: list[Stored] = []
        for _ in range(READS):
            while some := await self._read_some(subject, first):
                found += some
                first = some[-1].sequence + 1
                if first > last:
                    return [each for each in found if each.sequence <= last]
            await asyncio.sleep(PAUSE_S)
            if (top := await self.last(subject)) is None or top.sequence < last:
                return found  # it was forgotten meanwhile
        raise BrokerUnavailable("a copy of the stream is too far behind")

    async def forget(
        self,
        subject: str,
        *,
        keep: int = 0,
        before: int | None = None,
        by: Connection | None = None,
    ) -> None:
        """Forget the messages of a subject: all but the newest `keep`, or those before a number.

        `by` is the connection to say it by (None: the present one).
        """
        body: dict[str, Any] = {"filter": subject}
        if before is not None:
            body["seq"] = before
        elif keep:
            body["keep"] = keep
        await self._asked("STREAM.PURGE", body, by=by)

    async def _get(self, question: Mapping[str, Any]) -> Stored | None:
        answer = await self._asked("STREAM.MSG.GET", question, allowed=_NO_MESSAGE)
        if _code(answer):
            return None
        message = answer["message"]
        data = base64.b64decode(message.get("data", ""))
        headers = _own(headers_of(base64.b64decode(message.get("hdrs", "")))[0])
        return Stored(int(message["seq"]), data, _seconds(message["time"]), headers)

    async def _read_some(self, subject: str, first: int) -> list[Stored]:
        question = {"seq": first, "next_by_subj": subject, "batch": MOST_A_READ}
        try:
            answers = await self._connection().ask(
                f"$JS.API.DIRECT.GET.{self.name}", json.dumps(question).encode(), has_many=True
            )
        except NoRight:
            raise
        except Exception as error:
            raise BrokerUnavailable(_why(error)) from error
        *rows, end = answers
        if end.status not in ("204", "404"):
            raise BrokerUnavailable(f"JetStream does not answer: {printable(end.status)}")
        return [
            Stored(
                int(each.headers["Nats-Sequence"]),
                each.data,
                _seconds(each.headers["Nats-Time-Stamp"]),
                _own(each.headers),
            )
            for each in rows
        ]

    async def _asked(
        self,
        verb: str,
        body: Mapping[str, Any],
        *,
        allowed: int | None = None,
        by: Connection | None = None,
    ) -> dict[str, Any]:
        answer = await _ask(by or self._connection(), f"$JS.API.{verb}.{self.name}", body)
        if answer is None:
            raise NotNow("JetStream does not answer: it is off, or has no quorum")
        if _code(answer) != allowed:
            _refuse(answer)
        return answer


async def _ask(
    connection: Connection, subject: str, body: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Ask JetStream, and return its answer (None: nobody is there)."""
    try:
        answers: list[Answer] = await connection.ask(subject, json.dumps(body).encode())
    except NoRight:
        raise
    except Exception as error:
        raise NotNow(_why(error)) from error
    if answers[0].is_nobody:
        return None
    answer: dict[str, Any] = json.loads(answers[0].data)
    return answer


def _own(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: text for name, text in headers.items() if not name.startswith("Nats-")}


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "JetStream does not answer: it has no quorum, or too much to do"
    return printable(str(error) or type(error).__name__)


def _code(answer: Mapping[str, Any]) -> int | None:
    error = answer.get("error")
    return None if error is None else int(error.get("err_code", 0))


def _refuse(answer: Mapping[str, Any]) -> None:
    error = answer.get("error")
    if error is not None:
        text = printable(str(error.get("description")))
        kind = NotNow if error.get("code") == 503 else CallRefused
        raise kind(f"JetStream refuses it: {text}")


def _seconds(when: str) -> float:
    """Read a time of a server as seconds since 1970. It says nanoseconds, of which Python reads none."""
    whole, _, rest = when.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{rest or 0}")


def _state_of(answer: Mapping[str, Any]) -> State:
    time_s, last = _seconds(str(answer["ts"])), int(answer["state"]["last_seq"])
    replicas = int(answer["config"].get("num_replicas", 1))
    return State(str(answer["created"]), last, time_s, replicas)
