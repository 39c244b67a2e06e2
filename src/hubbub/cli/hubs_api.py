"""Hubs over their HTTP API: calls of its methods, and what their errors mean for who types a command.

What must not live here: what the methods do (`asgi.api_methods`), what is printed (`cluster`, `tail`). HTTP is the
standard library's. The key is sent in a header to the address that was named and to no other: redirections are
not followed. It is in no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

import click
import msgspec
from msgspec import Raw, Struct, UnsetType

from ..asgi import api_types as types
from ..errors import PositionLost
from ..limits import printable, shown_url
from ..model import ClientInfo, Position, Receipt
from .hubs import Message, Note, Page, Start, begin, missed

T = TypeVar("T")

TIMEOUT_S = 10.0
"""How long the API may be silent before a call is given up."""
POLL_S = 1.0
"""How often a room is read that is followed."""
LONGEST_DELAY_S = 30.0
"""How long is waited at most before an API that is away is tried again."""
MOST_BYTES = 256 * 1024**2
"""How much of an answer is read."""
NOT_AVAILABLE, POSITION_LOST, TOO_MANY, INTERNAL = 108, 112, 111, 100
"""Codes of errors, as the API says them."""
_TEMPORARY = (408, 429, 502, 503, 504)


class ApiError(click.ClickException):
    """What a call came to. `code` is that of the API (0: none came); one that `is_temporary` may be tried again."""

    def __init__(self, text: str, code: int = 0, *, is_temporary: bool = False) -> None:
        super().__init__(text)
        self.code: int = code
        self.is_temporary: bool = is_temporary


class ApiHubs:
    """Hubs over the HTTP API at `url`: see `Hubs`."""

    def __init__(self, url: str, key: str) -> None:
        self._url = checked_url(url)
        self._shown = shown_url(self._url)
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise click.ClickException("the key has characters that no key of an API has")
        self._key = key
        handlers: list[Any] = [_NoRedirects]
        if urlsplit(self._url).hostname in ("localhost", "127.0.0.1", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))  # as `hubbub connect` does
        self._opener = urllib.request.build_opener(*handlers)

    def publish(self, room: str, data: str, key: str | None) -> Receipt:
        """Publish to a room. The API takes JSON alone."""
        try:
            value = msgspec.json.decode(data.encode(), type=Raw)
        except (msgspec.DecodeError, RecursionError):
            text = "the API publishes JSON, and DATA is none; a text is JSON in quotes: '\"hello\"'"
            raise click.ClickException(text) from None
        fields = {"channel": room, "data": value} | ({"idempotency_key": key} if key else {})
        done = self.call("publish", types.PublishResult, **fields)
        if isinstance(done.offset, UnsetType) or isinstance(done.epoch, UnsetType):
            return Receipt(0)
        return Receipt(0, Position(done.offset, done.epoch))

    def to_user(self, user: str, data: str, key: str | None) -> Receipt:
        """Raise: the API publishes to rooms."""
        _only_over_a_broker("publish to a user")

    def broadcast(self, data: str, key: str | None) -> Receipt:
        """Raise: the API publishes to rooms."""
        _only_over_a_broker("publish to everybody")

    def presence(self, room: str) -> Mapping[str, ClientInfo]:
        """Return who is in a room."""
        found = self.call("presence", types.PresenceResult, channel=room).presence
        return {
            client: ClientInfo(
                info.client,
                info.user or None,
                _value_of(info.chan_info),
                _value_of(info.conn_info),
            )
            for client, info in found.items()
        }

    def rooms(self, pattern: str) -> Mapping[str, int]:
        """Return the rooms that have members, and how many."""
        found = self.call("channels", types.ChannelsResult, pattern=pattern).channels
        return {name: room.num_clients for name, room in found.items()}

    def disconnect(self, client: str | None, user: str | None, code: int, reason: str) -> None:
        """Close all clients of a user, or the one of them that is named."""
        if user is None:
            text = (
                "the API knows a client by its user: add --user USER (--user '' for a client "
                "without one), or name a broker"
            )
            raise click.UsageError(text)
        fields = {"user": user, "disconnect": {"code": code, "reason": reason}}
        self.call("disconnect", types.Nothing, **fields | ({"client": client} if client else {}))

    async def follow(self, room: str, start: Start) -> AsyncGenerator[Message | Note, None]:
        """Yield what is published to a room that remembers: it is read once a second."""

        feed = Feed(self, room)
        first, position = await begin(feed, start)
        for message in first:
            yield message
        failures = 0
        while True:
            await asyncio.sleep(min(POLL_S * 2**failures, LONGEST_DELAY_S))
            try:
                found, position = await missed(feed, position)
            except ApiError as error:
                if not error.is_temporary:
                    raise
                if not failures:
                    yield Note("away", f"{error.message}; it is tried again")
                failures = min(failures + 1, 10)
                continue
            if failures:
                failures = 0
                yield Note("back", "the API answers again")
            for item in found:
                yield item

    def close(self) -> None:
        """Do nothing: each call has a connection of its own."""

    # Calls

    def call(self, method: str, kind: type[T], **fields: Any) -> T:
        """Call a method; return its result, of this type. Raises `ApiError`."""
        headers = {"X-API-Key": self._key, "Content-Type": "application/json"}
        body = msgspec.json.encode(fields)
        request = urllib.request.Request(f"{self._url}/{method}", body, headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                answer = response.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(method, error.code, error.read(MOST_BYTES))
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            hint = "" if "CERTIFICATE" in why else "; does the server run, and listen there?"
            text = f"the API at {self._shown} cannot be reached: {printable(why)}{hint}"
            raise ApiError(text, is_temporary=True) from None
        failure = _failure_in(answer)
        if failure is not None:
            raise _error(failure)
        try:
            return msgspec.json.decode(msgspec.json.decode(answer, type=_Answer).result, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._no_api("its answer is none of an API") from None

    def _refused(self, method: str, status: int, answer: bytes) -> NoReturn:
        """Raise what an HTTP status means."""
        if status == 401:
            raise ApiError(
                f"the API at {self._shown} does not take this key: see --api-key-file, "
                f"the variable API_KEY or --api-key"
            )
        failure = _failure_in(answer)
        if failure is not None and status != 404:
            raise _error(failure, is_temporary=status in _TEMPORARY)
        if status in _TEMPORARY or status >= 500:
            text = f"the API at {self._shown} cannot answer now: HTTP status {status}"
            raise ApiError(text, is_temporary=True)
        what = "redirects elsewhere" if 300 <= status < 400 else f"answers {method} with {status}"
        raise self._no_api(f"it {what}")

    def _no_api(self, why: str) -> ApiError:
        return ApiError(
            f"there is no API of Hubbub at {self._shown}: {why}; --api is its address with its "
            "path, as in http://localhost:8000/api"
        )


class Feed:
    """What a room has kept, read over the API; see `Reader`."""

    def __init__(self, hubs: ApiHubs, room: str) -> None:
        self._hubs = hubs
        self._room = room

    async def read(self, since: Position | None = None, newest: int | None = None) -> Page:
        """Read what the room has kept."""
        fields: dict[str, Any] = {"limit": -1 if newest is None else newest}
        if newest is not None:
            fields["reverse"] = True
        if since is not None:
            fields["since"] = {"offset": since.offset, "epoch": since.epoch}
        try:
            found = await _aside(lambda: self._history(fields))
        except ApiError as error:
            if error.code == POSITION_LOST and since is not None:
                raise PositionLost(self._room, is_other_epoch=False) from error
            if error.code == NOT_AVAILABLE:
                text = (
                    "this room keeps no history, so the API cannot tell what is published in it; "
                    "over a broker any room can be followed: --broker URL"
                )
                raise ApiError(text, error.code) from error
            raise
        messages = [
            Message(bytes(each.data).decode(), Position(each.offset, found.epoch))
            for each in found.publications
        ]
        ordered = messages if newest is None else messages[::-1]
        return Page(ordered, Position(found.offset, found.epoch))

    def _history(self, fields: dict[str, Any]) -> types.HistoryResult:
        return self._hubs.call("history", types.HistoryResult, channel=self._room, **fields)


class _Answer(Struct):
    result: Raw


class _Failed(Struct):
    error: types.Error


def _failure_in(answer: bytes) -> types.Error | None:
    """Return the error in an answer; None where there is none, or what is there is no answer of an API."""
    try:
        return msgspec.json.decode(answer, type=_Failed).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: a key is for the address that was named."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        """Refuse: the status becomes an error."""


def checked_url(url: str) -> str:
    """Return the address of an API without a slash at its end; raise `UsageError` for what is none."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not url.isascii() or not url.isprintable() or " " in url:
        raise click.UsageError("--api is an address such as http://localhost:8000/api")
    if parts.username is not None or parts.query or parts.fragment:
        raise click.UsageError("--api has no password and no query in it: the key is named apart")
    return url.rstrip("/")


def _error(failure: types.Error, *, is_temporary: bool = False) -> ApiError:
    text = printable(failure.message)
    if failure.code == 103:
        text += "; what a key may do stands where the server's keys are given (methods, rooms)"
    temporary = is_temporary or failure.code in (TOO_MANY, INTERNAL)
    return ApiError(f"the API says: {text}", failure.code, is_temporary=temporary)


def _only_over_a_broker(what: str) -> NoReturn:
    raise click.UsageError(f"the API cannot {what}: name a ROOM, or the broker with --broker")


def _value_of(info: Raw | UnsetType) -> Any:
    return None if isinstance(info, UnsetType) else msgspec.json.decode(info)


async def _aside(call: Callable[[], T]) -> T:
    """Call what blocks, in a thread of its own that nobody waits for when the command ends before it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def answer(result: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result, problem = None, None
        try:
            result = call()
        except Exception as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(answer, result, problem)

    threading.Thread(target=run, name="hubbub tail", daemon=True).start()
    return await done
