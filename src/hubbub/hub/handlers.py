"""Handlers: what an application registered, and how each of its functions wants to be called.

What must not live here: calling order and errors (`dispatcher`) and the decorators' home (`hub`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ..errors import CommandError
from ..limits import printable
from ..messages.decoders import Decoder, decoder_for, type_of
from ..messages.types import NotAMessage, bare, shown
from ..model import ClientInfo, Close, Handshake, Identity
from ..wire.frame import Frame
from .signature import (
    CLIENT,
    Function,
    Given,
    Shape,
    annotation_of,
    name_of,
    parameter_name,
    read,
)

_MESSAGE = Given("message")
_ROOM = Given("room", str)
_NO_MESSAGES = (Handshake, Close, Identity)
"""Types of ours that could be read from JSON, and are what other functions get."""

SHAPES: Mapping[str, Shape] = {
    shape.decorator: shape
    for shape in (
        Shape("on_connect", (CLIENT, Given("handshake", Handshake)), 1),
        Shape("on_message", (CLIENT, _MESSAGE), 2),
        Shape("on_disconnect", (CLIENT, Given("close", Close)), 1),
        Shape("on_drop", (CLIENT, Given("count", int)), 2),
        Shape(
            "validate", (CLIENT, _MESSAGE), 2, advice="return False to refuse a message, else True"
        ),
        Shape(
            "authenticate",
            (Given("handshake", Handshake),),
            1,
            (Identity, str),
            "return an Identity, or a user's name; None refuses",
        ),
        Shape(
            "authorize",
            (CLIENT, Given("action", str), Given("room", str)),
            3,
            advice="return True to allow it, False to refuse",
        ),
        Shape("on_join", (_ROOM, Given("info", ClientInfo)), 2),
        Shape("on_leave", (_ROOM, Given("info", ClientInfo)), 2),
        Shape("presence_info", (CLIENT, _ROOM), 2, (object,), may_be_async=False),
    )
}
"""What the function of each decorator looks like; `on` is like `on_message`."""


def _unknown_type(kind: str | None) -> CommandError:
    if kind is None:
        return CommandError("unknown_type", 'a JSON object with a "type" was expected')
    return CommandError(
        "unknown_type", f"no handler takes messages of the type {printable(kind, 50)!r}"
    )


def _no_handler() -> CommandError:
    return CommandError(
        "not_available", "not available: this hub has room rules and no handler of messages"
    )


class MessageHandler:
    """A function for messages, with the decoder that its annotation asked for."""

    __slots__ = ("decode", "function", "takes_text")

    def __init__(self, function: Function, decode: Decoder, *, takes_text: bool = False) -> None:
        self.function: Function = function
        self.decode: Decoder = decode
        self.takes_text: bool = takes_text
        """Whether a text message is handed on as `str`, so that there is nothing to decode."""


class Handlers:
    """The functions of one hub. Filled before the first client connects."""

    def __init__(self) -> None:
        self.connect: list[tuple[Function, int]] = []
        self.disconnect: list[tuple[Function, int]] = []
        self.drop: list[Function] = []
        self.message: MessageHandler | None = None
        self.typed: dict[str, MessageHandler] = {}
        self.rpc: dict[str, MessageHandler] = {}
        self.validate: Function | None = None
        self.authenticate: Function | None = None
        self.authorize: Function | None = None
        self.join: list[Function] = []
        self.leave: list[Function] = []
        self.presence_info: Function | None = None
        self._either = decoder_for(str | bytes)
        self.only: MessageHandler | None = None
        """The handler of every message, where there is one, and no other and no validation."""
        self.relays: bool = True
        """Whether what a client sends goes to everybody: no handler takes it, and no room has a rule."""
        self._may_relay = True

    def _compile(self) -> None:
        is_alone = not self.typed and self.validate is None
        self.only = self.message if is_alone else None
        self.relays = self._may_relay and self.message is None and not self.typed

    @property
    def takes_messages(self) -> bool:
        """Whether anything becomes of what a client sends: a handler takes it, or it goes to everybody."""
        return self.relays or self.message is not None or bool(self.typed)

    def forbid_relay(self) -> None:
        """Have a message that no handler takes refused: rooms have rules, and would not be theirs."""
        self._may_relay = False
        self._compile()

    def add_connect(self, function: Function) -> None:
        """Register `f(client)` or `f(client, handshake)`."""
        self.connect.append((function, self._read_new("on_connect", function, self.connect)))

    def add_disconnect(self, function: Function) -> None:
        """Register `f(client)` or `f(client, close)`."""
        arity = self._read_new("on_disconnect", function, self.disconnect)
        self.disconnect.append((function, arity))

    def add_drop(self, function: Function) -> None:
        """Register `f(client, count)`."""
        self._read_new("on_drop", function, [(there, 2) for there in self.drop])
        self.drop.append(function)

    def set_message(self, function: Function) -> None:
        """Register the one `f(client, message)`; its annotation decides what it gets."""
        handler = self._message_handler(SHAPES["on_message"], function, str)
        _check_free("on_message", function, self.message)
        self.message = handler
        self._compile()

    def add_typed(self, kind: str, function: Function) -> None:
        """Register `f(client, message)` for JSON objects whose `type` is `kind`."""
        shape = SHAPES["on_message"]._replace(decorator=f"on({kind!r})")
        handler = self._message_handler(shape, function, dict[str, Any], kind)
        _check_free(shape.decorator, function, self.typed.get(kind))
        self.typed[kind] = handler
        self._compile()

    def add_rpc(self, method: str, function: Function) -> None:
        """Register `f(client, data)` that clients call by the name `method`."""
        advice = "return what the client is to get"
        shape = Shape(f"rpc({method!r})", (CLIENT, Given("data")), 2, (object,), advice)
        handler = self._message_handler(shape, function, Any)
        _check_free(shape.decorator, function, self.rpc.get(method))
        self.rpc[method] = handler

    def set_validate(self, function: Function) -> None:
        """Register the one `f(client, message)` that may refuse a message."""
        read(function, SHAPES["validate"])
        _check_free("validate", function, self.validate)
        self.validate = function
        self._compile()

    def set_authenticate(self, function: Function) -> None:
        """Register the one `f(handshake)` that says who asks for a socket."""
        read(function, SHAPES["authenticate"])
        _check_free("authenticate", function, self.authenticate)
        self.authenticate = function

    def set_authorize(self, function: Function) -> None:
        """Register the one `f(client, action, room)` that says what a client may do."""
        read(function, SHAPES["authorize"])
        _check_free("authorize", function, self.authorize)
        self.authorize = function

    def add_join(self, function: Function) -> None:
        """Register `f(room, info)` for who has come into a room."""
        self._read_new("on_join", function, [(there, 2) for there in self.join])
        self.join.append(function)

    def add_leave(self, function: Function) -> None:
        """Register `f(room, info)` for who has left a room."""
        self._read_new("on_leave", function, [(there, 2) for there in self.leave])
        self.leave.append(function)

    def set_presence_info(self, function: Function) -> None:
        """Register the one `f(client, room)` that says what others see of a member."""
        read(function, SHAPES["presence_info"])
        if inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise TypeError(
                f"@hub.presence_info: {name_of(function)} is async, and is asked while the client "
                "joins: note what it needs in client.meta before that, and write def"
            )
        _check_free("presence_info", function, self.presence_info)
        self.presence_info = function

    def route(self, frame: Frame) -> tuple[Function | None, Any]:
        """Return the function for a message and the decoded message.

        The function is None when the message is to be broadcast. Raises `CommandError`.
        """
        if self.typed:
            kind = type_of(frame)
            typed = None if kind is None else self.typed.get(kind)
            if typed is not None:
                return typed.function, typed.decode(frame)
            if self.message is None:
                raise _unknown_type(kind)
        if self.relays:
            return None, self._either(frame)
        if self.message is None:
            raise _no_handler()
        return self.message.function, self.message.decode(frame)

    def _read_new(
        self, decorator: str, function: Function, there: list[tuple[Function, int]]
    ) -> int:
        """Return with how many arguments to call one of several functions; refuse it the second time."""
        arity = read(function, SHAPES[decorator])
        if any(function == known for known, _ in there):
            raise ValueError(f"@hub.{decorator}: {name_of(function)} is registered already")
        return arity

    def _message_handler(
        self, shape: Shape, function: Function, default: Any, kind: str | None = None
    ) -> MessageHandler:
        read(function, shape)
        try:
            annotation = annotation_of(function, 1, default)
            if annotation in (Any, object):
                annotation = Any if kind is None else default  # what has a type is JSON
            if annotation in _NO_MESSAGES:
                raise NotAMessage(shown(annotation))
            annotation = bare(annotation)
            decode = decoder_for(annotation, kind)
        except TypeError as error:
            raise TypeError(
                f"@hub.{shape.decorator}: {name_of(function)} cannot get its parameter "
                f"{parameter_name(function, 1)!r}: {error}"
            ) from error
        return MessageHandler(function, decode, takes_text=annotation in (str, str | bytes))


def _check_free(
    decorator: str, function: Function, there: Function | MessageHandler | None
) -> None:
    """Raise `ValueError` where there is a function already, and can be one only."""
    if there is None:
        return
    if isinstance(there, MessageHandler):
        there = there.function
    advice = "; use hub.on(type) for several" if decorator == "on_message" else ""
    raise ValueError(
        f"@hub.{decorator}: {name_of(function)} cannot be registered: {name_of(there)} is "
        f"registered already{advice}"
    )


Decorator = TypeVar("Decorator", bound=Callable[..., Any])
"""A decorator of the hub's, whose types a checker sees as they are written."""


def takes(argument: str, advice: str) -> Callable[[Decorator], Decorator]:
    """Let a decorator that is called without `argument` raise a `TypeError` that says what to write.

    Not a default, which would let a type checker accept the call.
    """

    def guarding(decorator: Decorator) -> Decorator:
        @functools.wraps(decorator)
        def guarded(hub: Any, /, *arguments: Any, **keywords: Any) -> Any:
            if not arguments and argument not in keywords:
                raise TypeError(f"@hub.{decorator.__name__} without its {argument}: write {advice}")
            return decorator(hub, *arguments, **keywords)

        return cast("Decorator", guarded)

    return guarding


def takes_function(decorator: Decorator) -> Decorator:
    """Let a decorator that is written with brackets raise a `TypeError`: `@hub.on_message()`."""
    name = decorator.__name__
    return takes("function", f"@hub.{name} without brackets, above the function")(decorator)


def check_kind(kind: object) -> None:
    """Raise `TypeError` for what is no type of messages: one forgets the parentheses of `@hub.on`."""
    if callable(kind):
        raise TypeError(
            f'@hub.on: {name_of(kind)} stands where the type belongs: write @hub.on("say") above '
            'it for messages like {"type": "say"}, or @hub.on_message for all'
        )
    if not isinstance(kind, str):
        raise TypeError(f"@hub.on({kind!r}): the type of a message is a string")
