"""API methods: what the HTTP API can do, in one table, and how each is done.

What must not live here: HTTP (`api`), how a thing is done on all nodes (the hub), what requests look like
(`api_types`). The OpenAPI document is made from the table.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ..dialects.centrifuge_events import VERSION, code_of, json_of
from ..errors import BrokerError, CommandError, HubNotRunning, PositionLost, check_close
from ..hub.publishing import check_key
from ..hub.user_actions import Grant, Whom
from ..limits import check_room_name, explain, printable
from ..model import ClientInfo, Position, check_unix_time
from ..wire.frame import Frame
from ..wire.publication import Publication
from . import api_types as types

if TYPE_CHECKING:
    from ..hub.core import Core
    from .api_keys import Caller

S = TypeVar("S")
T = TypeVar("T")

FORCE_DISCONNECT = (3503, "force disconnect")
"""How connections are closed unless the request says otherwise."""
WAIT_S = 0.5
"""How long other nodes have to answer."""
MOST_CHANNELS = 10_000
"""How many rooms one broadcast has at most."""
MOST_COMMANDS = 1_000
"""How many methods one batch has at most."""
AT_ONCE = 64
"""How many of them are carried out at the same time, where their order does not matter."""

_NULL = Raw(b"null")


class Method(NamedTuple):
    """A method: the sentence that says what it does, its request and its result, and how it is done.

    `has_room`: it concerns rooms, so a key for some rooms may call it.
    """

    text: str
    request: type[Struct]
    result: type[Struct]
    call: Callable[[Methods, Caller, Any], Awaitable[Struct]]
    has_room: bool = True


class Methods:
    """Carries out the methods of one API. Event loop only."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def answer(self, name: str, body: Raw | bytes, caller: Caller) -> dict[str, Any]:
        """Carry out a method that may be called, and is charged: return `result` or `error`."""
        core = self._core
        core.stats.api_calls += 1
        try:
            method = METHODS[name]
            request = msgspec.json.decode(body, type=method.request)
            return {"result": await method.call(self, caller, request)}
        except CommandError as error:
            found = types.Error(code_of(error), error.message or error.code)
        except PositionLost as error:
            found = types.Error(112, f"unrecoverable position: {error}")
        except (msgspec.ValidationError, UnicodeError) as error:
            found = types.Error(107, f"bad request: {explain(error)}")
        except (BrokerError, HubNotRunning) as error:
            text = "the method %s of the API failed: %s"
            core.log.log(logging.WARNING, "api broker", text, name, printable(str(error)))
            found = types.Error(100, "internal server error: try again later")
        except Exception as error:
            core.log.log(logging.ERROR, "api", "the method %s of the API failed", name, error=error)
            found = types.Error(100, "internal server error")
        core.stats.api_errors += 1
        return {"error": found}

    def check(self, name: str, caller: Caller) -> None:
        """Raise `CommandError` for a method that there is not, or that the key may not call."""
        method = METHODS.get(name)
        if method is None:
            raise CommandError("unknown_method", "method not found")
        # A batch does nothing itself: each of its commands comes here.
        if name != "batch" and not caller.key.may_call(name, has_room=method.has_room):
            raise CommandError("forbidden", f"permission denied: this key may not call {name}")

    # What has a room

    async def publish(self, caller: Caller, request: types.PublishRequest) -> types.PublishResult:
        """Publish a message to a room."""
        return await self._publish(caller, request.channel, _frame_of(request), request)

    async def _publish(
        self, caller: Caller, room: str, frame: Frame, request: types.Message
    ) -> types.PublishResult:
        core = self._core
        _check_room(caller, room)
        is_kept, key = not request.skip_history, request.idempotency_key or None
        rule = core.rules.of(room)
        if not is_kept and rule is not None and rule.rules.delta:
            raise CommandError("not_available", "a room with delta=True keeps every message")
        if key is not None:
            try:
                check_key(key)
            except (TypeError, ValueError) as error:
                raise CommandError("bad_request", f"bad request: idempotency_{error}") from None
        receipt = await core.publishing.publish_in_turn(room, frame, key, is_kept=is_kept)
        if receipt.position is None:
            return types.PublishResult()
        return types.PublishResult(receipt.position.offset, receipt.position.epoch)

    async def broadcast(
        self, caller: Caller, request: types.BroadcastRequest
    ) -> types.BroadcastResult:
        """Publish a message to several rooms. Each room counts as a call."""
        frame, rooms = _frame_of(request), request.channels
        _check_count(rooms, MOST_CHANNELS, "channels")

        async def publish_one(place: tuple[int, str]) -> types.PublishReply:
            number, room = place
            try:
                if number:  # the first has been charged
                    _charge(caller)
                return types.PublishReply(await self._publish(caller, room, frame, request))
            except CommandError as error:
                return types.PublishReply(error=types.Error(code_of(error), error.message))
            except BrokerError:
                return types.PublishReply(error=types.Error(100, "internal server error"))

        return types.BroadcastResult(await _each(publish_one, list(enumerate(rooms)), at_once=True))

    async def subscribe(self, caller: Caller, request: types.SubscribeRequest) -> types.Nothing:
        """Put connections of a user into a room, on all nodes. Nobody is asked whether they may."""
        _check_room(caller, request.channel)
        _check_not_given(request, "info", "b64info", "override")
        since, data = request.recover_since, None
        if request.b64data or not isinstance(request.data, UnsetType):
            data = json_of(_frame_of(request)).decode()
        ends_at = _end_of(request)
        if ends_at is not None and ends_at <= time.time():
            raise CommandError("110", "expired")
        position = None if since is None else Position(since.offset, since.epoch)
        grant = Grant(request.channel, position, data, ends_at)
        if whom := _whom(request):
            await self._core.user_actions.subscribe(whom, grant)
        return types.Nothing()

    async def unsubscribe(self, caller: Caller, request: types.UnsubscribeRequest) -> types.Nothing:
        """Take connections of a user out of a room, on all nodes."""
        _check_room(caller, request.channel)
        if whom := _whom(request):
            await self._core.user_actions.unsubscribe(whom, request.channel)
        return types.Nothing()

    async def presence(self, caller: Caller, request: types.ChannelRequest) -> types.PresenceResult:
        """Tell who is in a room whose rule says presence=True."""
        _check_room(caller, request.channel)
        found = await self._core.presence.present(request.channel)
        return types.PresenceResult({client: _info(info) for client, info in found.items()})

    async def presence_stats(
        self, caller: Caller, request: types.ChannelRequest
    ) -> types.PresenceStatsResult:
        """Tell how many are in a room whose rule says presence=True."""
        _check_room(caller, request.channel)
        found = await self._core.presence.stats(request.channel)
        return types.PresenceStatsResult(found.clients, found.users)

    async def history(self, caller: Caller, request: types.HistoryRequest) -> types.HistoryResult:
        """Return what a room has kept, and where it stands."""
        room, since, limit = request.channel, None, request.limit or 0
        _check_room(caller, room)
        recovery = self._core.recovery
        recovery.require_history(room)
        if request.since is not None:
            offset, epoch = request.since.offset, request.since.epoch
            if not epoch:
                epoch = (await recovery.page(room, limit=0)).position.epoch
            since = Position(offset, epoch)
        most, is_reverse = (None if limit < 0 else limit), bool(request.reverse)
        page = await recovery.page(room, since=since, limit=most, reverse=is_reverse)
        return types.HistoryResult(
            [_publication(each) for each in page.publications],
            page.position.offset,
            page.position.epoch,
        )

    async def history_remove(self, caller: Caller, request: types.ChannelRequest) -> types.Nothing:
        """Forget what a room has kept; it begins a new epoch."""
        _check_room(caller, request.channel)
        await self._core.recovery.remove(request.channel)
        return types.Nothing()

    async def channels(
        self, caller: Caller, request: types.ChannelsRequest
    ) -> types.ChannelsResult:
        """Tell which rooms have members, on all nodes, and how many."""
        pattern = request.pattern or ""
        if "{" in pattern:
            raise CommandError("bad_request", "bad request: a pattern has no alternatives here")
        found = await self._core.surveys.rooms(pattern, WAIT_S)
        may_use = caller.key.may_use
        return types.ChannelsResult(
            {room: types.ChannelInfo(count) for room, count in found.items() if may_use(room)}
        )

    # What has none

    async def disconnect(self, caller: Caller, request: types.DisconnectRequest) -> types.Nothing:
        """Close connections of a user, on all nodes."""
        code, reason = FORCE_DISCONNECT
        if request.disconnect is not None and request.disconnect.code:
            code, reason = request.disconnect.code, request.disconnect.reason
        try:
            check_close(code, reason)
        except ValueError as error:
            raise CommandError("bad_request", f"bad request: {error}") from None
        if whom := _whom(request, request.whitelist or ()):
            await self._core.user_actions.close(whom, code, reason)
        return types.Nothing()

    async def refresh(self, caller: Caller, request: types.RefreshRequest) -> types.Nothing:
        """Let connections of a user stay until a time, or for good, or close them as expired."""
        _check_not_given(request, "info")
        whom, ends_at = _whom(request), _end_of(request)
        if whom is not None and request.expired:
            await self._core.user_actions.expire(whom)
        elif whom is not None:
            await self._core.user_actions.refresh(whom, ends_at)
        return types.Nothing()

    async def info(self, caller: Caller, request: types.InfoRequest) -> types.InfoResult:
        """Tell which processes there are, and what each has."""
        return types.InfoResult(
            [
                types.Node(
                    node.id,
                    node.id,
                    VERSION,
                    node.clients,
                    node.users,
                    node.rooms,
                    node.subscriptions,
                    node.uptime_s,
                )
                for node in await self._core.control.nodes(WAIT_S, must_ask=True)
            ]
        )

    async def batch(self, caller: Caller, request: types.BatchRequest) -> types.BatchResult:
        """Call several methods, one after another unless their order does not matter. Each counts as a call."""
        commands = request.commands
        _check_count(commands, MOST_COMMANDS, "commands")

        async def call_one(command: dict[str, Raw]) -> dict[str, Any]:
            return await self._command(caller, command)

        return types.BatchResult(await _each(call_one, commands, at_once=bool(request.parallel)))

    async def _command(self, caller: Caller, command: dict[str, Raw]) -> dict[str, Any]:
        """Carry out a method of a batch; return its reply."""
        try:
            if len(command) != 1 or "batch" in command:
                raise CommandError("bad_request", "bad request: a command has one method, no batch")
            ((name, body),) = command.items()
            self.check(name, caller)
            _charge(caller)
        except CommandError as error:
            self._core.stats.api_calls += 1
            self._core.stats.api_errors += 1
            return {"error": types.Error(code_of(error), error.message)}
        done = await self.answer(name, body, caller)
        return {name: done["result"]} if "result" in done else done


async def _each(
    call: Callable[[S], Coroutine[Any, Any, T]], items: Sequence[S], *, at_once: bool
) -> list[T]:
    """Call for all items, for some at the same time or one after another; return the answers in their order.

    Others have their turn after every `AT_ONCE` of them.
    """
    found: list[T] = []
    for start in range(0, len(items), AT_ONCE):
        part = items[start : start + AT_ONCE]
        if at_once:
            found += await asyncio.gather(*map(call, part))
        else:
            found += [await call(item) for item in part]
            await asyncio.sleep(0)
    return found


def _check_count(items: Sequence[object], most: int, name: str) -> None:
    if len(items) > most:
        raise CommandError("bad_request", f"bad request: more than {most} {name}")


def _publication(publication: Publication) -> types.Publication:
    position, publisher = publication.position, publication.publisher
    return types.Publication(
        Raw(json_of(publication.frame)),
        position.offset if position else 0,
        UNSET if publisher is None else _info(publisher),
    )


def _info(info: ClientInfo) -> types.ClientInfo:
    return types.ClientInfo(info.user or "", info.client, _raw(info.conn_info), _raw(info.info))


def _raw(value: Any) -> Raw | UnsetType:
    return UNSET if value is None else Raw(msgspec.json.encode(value))


def _check_room(caller: Caller, room: str) -> None:
    """Raise `CommandError` for what can be no room, and for one that the key is not for."""
    check_room_name(room)
    if not caller.key.may_use(room):
        raise CommandError("forbidden", "permission denied: this key is not for this room")


def _charge(caller: Caller) -> None:
    if not caller.charge():
        raise CommandError("too_many_messages", "too many requests", temporary=True)


def _check_not_given(request: Struct, *names: str) -> None:
    """Raise `CommandError` for what this hub cannot do: it is never passed over in silence."""
    for name in names:
        value = getattr(request, name)
        if value and value != _NULL:
            raise CommandError("not_available", f"not available: {name}")


def _end_of(request: types.SubscribeRequest | types.RefreshRequest) -> float | None:
    """Return when something is to end; None for never."""
    try:
        return check_unix_time(request.expire_at or None)
    except ValueError as error:
        raise CommandError("bad_request", f"bad request: {error}") from None


def _frame_of(request: types.Message | types.SubscribeRequest) -> Frame:
    """Return the message of a request: its JSON as it was written, or its bytes."""
    if isinstance(request, types.Message):
        _check_not_given(request, "tags", "version", "version_epoch")
    if request.b64data:
        try:
            return Frame(base64.b64decode(request.b64data, validate=True), False)
        except (binascii.Error, ValueError):
            raise CommandError("bad_request", "bad request: b64data is no base64") from None
    if isinstance(request.data, UnsetType):
        raise CommandError("bad_request", "bad request: there is no data")
    return Frame(bytes(request.data), True)


def _whom(request: types.UserRequest, spared: Sequence[str] = ()) -> Whom | None:
    """Return which connections are meant; None where a session is named, which no client here has."""
    if request.session:
        return None
    return Whom(request.user, request.client or None, tuple(spared))


METHODS: dict[str, Method] = {
    "publish": Method(
        "Publish a message to a room.", types.PublishRequest, types.PublishResult, Methods.publish
    ),
    "broadcast": Method(
        "Publish a message to several rooms.",
        types.BroadcastRequest,
        types.BroadcastResult,
        Methods.broadcast,
    ),
    "subscribe": Method(
        "Put connections of a user into a room, on all nodes.",
        types.SubscribeRequest,
        types.Nothing,
        Methods.subscribe,
    ),
    "unsubscribe": Method(
        "Take connections of a user out of a room, on all nodes.",
        types.UnsubscribeRequest,
        types.Nothing,
        Methods.unsubscribe,
    ),
    "disconnect": Method(
        "Close connections of a user, on all nodes.",
        types.DisconnectRequest,
        types.Nothing,
        Methods.disconnect,
        has_room=False,
    ),
    "refresh": Method(
        "Let connections of a user stay until a time, or for good, or close them as expired.",
        types.RefreshRequest,
        types.Nothing,
        Methods.refresh,
        has_room=False,
    ),
    "presence": Method(
        "Tell who is in a room.", types.ChannelRequest, types.PresenceResult, Methods.presence
    ),
    "presence_stats": Method(
        "Tell how many are in a room.",
        types.ChannelRequest,
        types.PresenceStatsResult,
        Methods.presence_stats,
    ),
    "history": Method(
        "Return what a room has kept, and where it stands.",
        types.HistoryRequest,
        types.HistoryResult,
        Methods.history,
    ),
    "history_remove": Method(
        "Forget what a room has kept.", types.ChannelRequest, types.Nothing, Methods.history_remove
    ),
    "channels": Method(
        "Tell which rooms have members, on all nodes, and how many.",
        types.ChannelsRequest,
        types.ChannelsResult,
        Methods.channels,
    ),
    "info": Method(
        "Tell which processes there are, and what each has.",
        types.InfoRequest,
        types.InfoResult,
        Methods.info,
        has_room=False,
    ),
    "batch": Method(
        "Call several methods at once.", types.BatchRequest, types.BatchResult, Methods.batch
    ),
}
"""All methods by name: of what is called, allowed, and documented."""
