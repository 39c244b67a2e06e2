"""A connection to a NATS server: how it is made, what goes by it, and what its errors mean.

What must not live here: where the servers are (`nats_address`), how it comes back (`nats_feed`), what is said.

This is the one module that imports the client library. That connects, logs in and reads; what it reads is taken from it
before it makes a queue and a task for each subscription. All that is written leaves in the order of the calls, what
one turn of the event loop writes at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
from asyncio import Future
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import BrokerUnavailable, MissingExtra
from ..limits import printable
from .broker import CallRefused
from .nats_address import NatsAddress, login_of
from .reconnecting import reason_of
from .valkey_address import check_files

logger: logging.Logger = logging.getLogger("hubbub")

TIMEOUT_S = 5.0
"""How long servers may take to connect, and to answer."""
_INBOX = 1
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"( \(sid )?')
"""With the number of a subscription it is one that was there: the server has read other rights."""
_TOO_MANY = "maximum subscriptions exceeded"
"""It names no subject, and is no reason for the server to end the connection."""

Take = Callable[[int, bytes, Mapping[str, str], bytes], None]
"""What is called with each message: the number of its subscription, its data, its headers, and where it is answered
(b"": nowhere)."""


class NoRight(BrokerUnavailable):
    """The server does not let this user publish, or subscribe, to a subject: nothing was done."""


class Rights:
    """What the server has refused to this user since the ping before. It names subjects in lower case."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], NoRight] = {}
        self.too_many: NoRight | None = None
        """Why there are no more subscriptions: some that were asked for were refused, and it is not known which."""

    def add(self, verb: str, subject: str) -> NoRight:
        """Note that a right is missing; return what says so."""
        error = NoRight(f"the server gives this user no right to {verb} to {printable(subject)}")
        self._refused[verb, subject] = error
        return error

    @property
    def missing(self) -> list[NoRight]:
        """All that was refused."""
        return list(self._refused.values())

    def to_publish(self, subject: str) -> NoRight | None:
        """Return why what was published to a subject was refused; None: it was not."""
        return self._refused.get(("publish", subject.lower()))

    def to_subscribe(self, subject: str) -> NoRight | None:
        """Return why nothing comes that is published to a subject; None: it does."""
        return self._refused.get(("subscribe", subject.lower())) or self.too_many


class Connection:
    """One connection, to the first of the servers that takes it; see the module. Event loop only.

    Answers to what it asks come below `inbox`. `failed` is set to an exception when it has broken. Raises
    `MissingExtra` without the extra `nats`.
    """

    def __init__(self, address: NatsAddress, take: Take, inbox: str = "_INBOX") -> None:
        self._address = address
        self.must_be_tls: bool = address.is_tls
        self._take = take
        self._client: Any = None
        self._error: BaseException | None = None
        self._said: BaseException | None = None
        """Why the server has ended the connection, in its words."""
        self._buffer: list[bytes] = []
        self._pongs: deque[Future[Rights]] = deque()
        self._rights = Rights()
        self._deaf: NoRight | None = None
        """Why no answer comes here."""
        self._inbox = f"{inbox}.{secrets.token_hex(12)}"
        self._questions: dict[str, _Question] = {}
        self._last_question = 0
        self.heard: int = 0
        """How often anything has come."""
        self.failed: Future[None] = asyncio.get_running_loop().create_future()

    @property
    def max_payload(self) -> int:
        """How many bytes a message may have, with its headers."""
        return int(self._client.max_payload)

    @property
    def version(self) -> tuple[int, int]:
        """Which version the server has."""
        version = self._client.connected_server_version
        return version.major, version.minor

    async def open(self, servers: Sequence[str]) -> None:
        """Connect. Raises what `unavailable` understands: the error of the last server."""
        for server in servers:
            client = _client_class()(self)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await client.connect(server, **self._options())
            except BaseException as error:
                await self._close(client)
                if not isinstance(error, Exception):
                    raise
                refused = isinstance(error, library().errors.NoServersError)
                self._error = self._error if refused and self._error is not None else error
                continue
            self._client, self._error = client, None
            self.write(f"SUB {self._inbox}.* {_INBOX}\r\n".encode())
            return
        raise self._error or OSError("no server is named")

    def _options(self) -> dict[str, Any]:
        address, files = self._address, dict(self._address.files)
        options: dict[str, Any] = {
            **login_of(address),
            "name": "hubbub",
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0.02,
            "connect_timeout": TIMEOUT_S,
            "error_cb": self._note,
            "closed_cb": self._closed,
        }
        check_files(files.values())
        if "creds" in files:
            options["user_credentials"] = files["creds"]
        if address.is_tls:
            options["tls"] = _tls(files, is_verified=address.is_verified)
        return options

    async def _note(self, error: BaseException) -> None:
        found = _VIOLATION.search(str(error).lower())
        if found is None:
            self._error = error
            return
        verb, subject, taken_away = found.groups()
        refused = self._rights.add("publish" if verb == "publish" else "subscribe", subject)
        if taken_away:
            # Nobody waits for that; who connects again sees what is left. What is asked may have been done.
            self.fail(BrokerUnavailable(str(refused)))
            return
        # The connection goes on, so this will not be why it ends.
        if verb != "publish" and subject == f"{self._inbox}.*".lower():
            self._deaf = refused
        for question in list(self._questions.values()):
            if self._deaf is not None or (
                verb == "publish" and subject == question.subject.lower()
            ):
                _fail(question.future, refused)

    async def _closed(self) -> None:
        if self._client is not None:  # else it never was the one
            self.fail(self._said or self._error or OSError("the connection has ended"))

    def said(self, text: str) -> bool:
        """Learn of an error that the server has named; return whether the connection goes on, though the library
        would close it."""
        if _TOO_MANY in text:
            self._rights.too_many = NoRight("the server gives this user no more subscriptions")
            return True
        if "permissions violation" not in text:  # the connection outlives those
            self._said = ConnectionError(f"the server says: {printable(text)}")
        return False

    def fail(self, error: BaseException) -> None:
        """Give the connection up; who waits for an answer gets `error`."""
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()
        waiting: list[Future[Any]] = [
            *self._pongs,
            *(row.future for row in self._questions.values()),
        ]
        self._pongs.clear()
        self._questions.clear()
        for future in waiting:
            _fail(future, error)

    async def close(self) -> None:
        """Disconnect."""
        self.fail(BrokerUnavailable("the broker has stopped"))
        client, self._client = self._client, None
        if client is not None:
            await self._close(client)

    async def _close(self, client: Any) -> None:
        try:
            async with asyncio.timeout(1):
                await client.close()
        except Exception as error:
            logger.debug("a connection to the broker ends: %s", type(error).__name__)

    # What is written

    def write(self, command: bytes) -> None:
        """Have bytes of the protocol leave at the end of this turn."""
        if not self._buffer:
            asyncio.get_running_loop().call_soon(self._flush)
        self._buffer.append(command)

    def _flush(self) -> None:
        buffer, self._buffer = self._buffer, []
        client = self._client
        if client is not None and not client.is_closed:
            client._transport.write(b"".join(buffer))

    def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Publish a message. Raises `CallRefused` for one that is larger than the server takes."""
        lines = [f"{name}: {text}\r\n" for name, text in (headers or {}).items()]
        head = f"NATS/1.0\r\n{''.join(lines)}\r\n".encode() if lines else b""
        size = len(head) + len(data)
        if size > self.max_payload:
            most = self.max_payload
            raise CallRefused(f"a message has {size} bytes, and the server takes {most}")
        place = f"{subject} {reply}".rstrip().encode()
        if head:
            self.write(b"HPUB %b %d %d\r\n%b%b\r\n" % (place, len(head), size, head, data))
        else:
            self.write(b"PUB %b %d\r\n%b\r\n" % (place, size, data))

    def subscribe(self, subject: str, number: int) -> None:
        """Have what comes to a subject come here. `number` is above 1, and of one subscription alone."""
        self.write(b"SUB %b %d\r\n" % (subject.encode(), number))

    def unsubscribe(self, number: int) -> None:
        """Have it come no more."""
        self.write(b"UNSUB %d\r\n" % number)

    def ping(self) -> Future[Rights]:
        """Return what is done when the server has taken all that was written before, and says what it refused of what
        was written after the last ping."""
        future: Future[Rights] = asyncio.get_running_loop().create_future()
        if self.failed.done() and (error := self.failed.exception()) is not None:
            # Nobody would answer, or the answer to one that was given up would be taken for its own.
            _fail(future, error)
            return future
        self._pongs.append(future)
        self.write(b"PING\r\n")
        return future

    async def ask(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        has_many: bool = False,
    ) -> list[Answer]:
        """Ask, and return the answer: one message, or with `has_many` all up to the one that ends them.

        Raises `NoRight` where the user may not ask, or gets no answers.
        """
        if self._deaf is not None:
            raise NoRight(str(self._deaf))  # one that is raised again and again keeps all who asked
        self._last_question += 1
        name = str(self._last_question)
        future: Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self.publish(subject, data, headers, f"{self._inbox}.{name}")
        self._questions[name] = _Question(subject, future, [], has_many)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await future
        finally:
            self._questions.pop(name, None)

    # What is read

    def took(
        self, number: int, subject: bytes, reply: bytes, data: bytes, head: bytes | None
    ) -> None:
        """Hand on a message. It raises nothing: the library would read no more."""
        self.heard += 1
        try:
            headers, status = headers_of(head) if head else ({}, "")
            if number == _INBOX:
                self._answered(subject.rpartition(b".")[2].decode(), Answer(data, headers, status))
            else:
                self._take(number, data, headers, reply)
        except Exception:
            logger.exception("a broker's message failed")

    def ponged(self) -> None:
        """Learn that the server has taken what was written before a ping."""
        self.heard += 1
        rights, self._rights = self._rights, Rights()
        if self._pongs:
            future = self._pongs.popleft()
            if not future.done():
                future.set_result(rights)

    def _answered(self, name: str, answer: Answer) -> None:
        question = self._questions.get(name)
        if question is None:
            return
        _, future, answers, has_many = question
        answers.append(answer)
        if (not has_many or answer.status) and not future.done():
            future.set_result(answers)


class Answer:
    """A message that answers a question. `status` is that of its first line, "" if there is none."""

    __slots__ = ("data", "headers", "status")

    def __init__(self, data: bytes, headers: Mapping[str, str], status: str) -> None:
        self.data: bytes = data
        self.headers: Mapping[str, str] = headers
        self.status: str = status

    @property
    def is_nobody(self) -> bool:
        """Whether nobody listens to the question."""
        return self.status == "503"


class _Question(NamedTuple):
    subject: str
    future: Future[list[Answer]]
    answers: list[Answer]
    has_many: bool


def _fail(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()


def headers_of(head: bytes) -> tuple[dict[str, str], str]:
    """Return the headers of a message, and its status, out of what stands before its data."""
    first, *lines = head.decode("utf-8", "replace").split("\r\n")
    status = first.removeprefix("NATS/1.0").strip()[:3]
    rows = (line.partition(":") for line in lines if line)
    return {name: text.strip() for name, _, text in rows}, status


def _tls(files: Mapping[str, str], *, is_verified: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.get("ca"))
    if "cert" in files:
        context.load_cert_chain(files["cert"], files.get("key"))
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def library() -> Any:
    """Return the client library. Raises `MissingExtra`."""
    try:
        import nats
        import nats.aio.client
        import nats.errors
    except ImportError as error:
        raise MissingExtra("nats-py", "nats") from error
    return nats


def _client_class() -> Any:
    """Return the library's client, which hands on what it reads at once. (Imported late: it is an extra.)

    Raises `BrokerUnavailable` for a version of the library that has not what is replaced here: it would go on without.
    """
    library_client = library().aio.client.Client

    class _Client(library_client):  # type: ignore[misc, valid-type]
        def __init__(self, owner: Connection) -> None:
            super().__init__()
            self._owner = owner

        async def _process_msg(
            self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
        ) -> None:
            self._owner.took(sid, bytes(subject), bytes(reply), data, headers)

        async def _process_err(self, err_msg: str) -> None:
            if not self._owner.said(err_msg.strip("'")):
                await super()._process_err(err_msg)

        async def _process_info(
            self, info: dict[str, Any], initial_connection: bool = False
        ) -> None:
            if initial_connection and self._owner.must_be_tls and not info.get("tls_required"):
                if not info.get("tls_available"):
                    raise library().errors.Error("the server has no TLS, and tls:// wants it")
                info["tls_required"] = True  # else the password would be written in the clear
            await super()._process_info(info, initial_connection)

        async def _ping_interval(self) -> None:
            """Ask for no sign of life: `nats_feed` does that. The library would take no answer for its own, since all
            are for `Connection.ping`, and close the connection after its third question."""

        async def _process_pong(self) -> None:
            self._owner.ponged()

    replaced = [name for name, what in vars(_Client).items() if callable(what)]
    if missing := [name for name in replaced if not hasattr(library_client, name)]:
        raise BrokerUnavailable(f"this version of nats-py is not known: it has no {missing[0]}")
    return _Client


def unavailable(error: BaseException) -> BrokerUnavailable:
    """Return what an error means to those who use the broker. It names no user and no password."""
    if isinstance(error, BrokerUnavailable):
        return error
    if "authorization" in str(error).lower() or "authentication" in str(error).lower():
        return BrokerUnavailable("the server refuses the user, password, token or credentials")
    if isinstance(error, TimeoutError):
        return BrokerUnavailable("the server does not answer")
    return BrokerUnavailable(reason_of(error))
