"""Handlers: what an application registered, and how each of its functions wants to be called.

What must not live here: calling order and errors (`inbound`) and the decorators' home (`registry`).
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from typing import Any

from .dialect import Decoder, Dialect
from .errors import CommandError
from .frame import Frame
from .limits import printable
from .model import Close, Handshake

Function = Callable[..., Any]


def _signature(function: Function) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # An annotation that only a type checker can resolve must not prevent the others' reading.
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _parameters(function: Function) -> list[inspect.Parameter]:
    parameters = list(_signature(function).parameters.values())
    required = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if required:
        raise TypeError(f"{_name(function)}: a handler is called with positional arguments only")
    return [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]


def _name(function: Function) -> str:
    return getattr(function, "__qualname__", repr(function))


def check_arity(function: Function, least: int, most: int, shape: str) -> int:
    """Return with how many arguments to call `function`; raise `TypeError` naming `shape`."""
    parameters = _parameters(function)
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    needed = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
    if needed > most or (len(parameters) < least and not takes_any):
        raise TypeError(f"{_name(function)}: expected {shape}")
    # A parameter with a default is the application's own, unless the hub always fills it.
    return most if takes_any else max(needed, least)


def annotation_of(function: Function, position: int, default: Any) -> Any:
    """Return the annotation of a positional parameter, resolved; `default` when there is none."""
    parameters = _parameters(function)
    if position >= len(parameters) or parameters[position].kind is inspect.Parameter.VAR_POSITIONAL:
        return default
    parameter = parameters[position]
    if parameter.annotation is inspect.Parameter.empty:
        return default
    annotation = parameter.annotation
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    return _resolve(function, annotation) if isinstance(annotation, str) else annotation


def _resolve(function: Function, annotation: str) -> Any:
    """Evaluate one annotation where the function stands; the others may be a type checker's only."""
    target = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = inspect.unwrap(target.func)
    if not inspect.isroutine(target):
        target = type(target).__call__
    namespace = dict(inspect.getclosurevars(target).nonlocals) if inspect.isfunction(target) else {}

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        return typing.get_type_hints(holder, getattr(target, "__globals__", {}), namespace)["it"]
    except Exception as error:
        raise TypeError(
            f"{_name(function)}: the annotation {annotation!r} cannot be resolved "
            f"({error}); define the type at the module's level"
        ) from None


def _unknown_type(kind: str | None) -> CommandError:
    if kind is None:
        return CommandError("unknown_type", 'a JSON object with a "type" was expected')
    return CommandError(
        "unknown_type", f"no handler takes messages of the type {printable(kind, 50)!r}"
    )


class MessageHandler:
    """A function for messages, with the decoder that its annotation asked for."""

    __slots__ = ("decode", "function", "takes_text")

    def __init__(self, function: Function, decode: Decoder, *, takes_text: bool = False) -> None:
        self.function = function
        self.decode = decode
        self.takes_text = takes_text
        """Whether a text message is handed on as `str`, so that there is nothing to decode."""


class Handlers:
    """The functions of one hub. Filled before the first client connects."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.connect: list[tuple[Function, int]] = []
        self.disconnect: list[tuple[Function, int]] = []
        self.drop: list[Function] = []
        self.message: MessageHandler | None = None
        self.typed: dict[str, MessageHandler] = {}
        self.validate: Function | None = None
        self.authenticate: Function | None = None
        self._either = dialect.decoder(str | bytes)
        self.only: MessageHandler | None = None
        """The handler of every message, where there is one, and no other and no validation."""

    def _note_the_only_one(self) -> None:
        is_alone = not self.typed and self.validate is None
        self.only = self.message if is_alone else None

    def add_connect(self, function: Function) -> None:
        """Register `f(client)` or `f(client, handshake)`."""
        shape = f"f(client) or f(client, handshake: {Handshake.__name__})"
        self.connect.append((function, check_arity(function, 1, 2, shape)))

    def add_disconnect(self, function: Function) -> None:
        """Register `f(client)` or `f(client, close)`."""
        shape = f"f(client) or f(client, close: {Close.__name__})"
        self.disconnect.append((function, check_arity(function, 1, 2, shape)))

    def add_drop(self, function: Function) -> None:
        """Register `f(client, count)`."""
        check_arity(function, 2, 2, "f(client, count: int)")
        self.drop.append(function)

    def set_message(self, function: Function) -> None:
        """Register the one `f(client, message)`; its annotation decides what it gets."""
        if self.message is not None:
            raise ValueError("on_message is registered already; use hub.on(type) for several")
        self.message = self._message_handler(function, str)
        self._note_the_only_one()

    def add_typed(self, kind: str, function: Function) -> None:
        """Register `f(client, message)` for JSON objects whose `type` is `kind`."""
        if kind in self.typed:
            raise ValueError(f"a handler for the type {kind!r} is registered already")
        self.typed[kind] = self._message_handler(function, dict[str, Any])
        self._note_the_only_one()

    def set_validate(self, function: Function) -> None:
        """Register the one `f(client, message)` that may refuse a message."""
        if self.validate is not None:
            raise ValueError("validate is registered already")
        check_arity(function, 2, 2, "f(client, message)")
        self.validate = function
        self._note_the_only_one()

    def set_authenticate(self, function: Function) -> None:
        """Register the one `f(handshake)` that says who asks for a socket."""
        if self.authenticate is not None:
            raise ValueError("authenticate is registered already")
        check_arity(function, 1, 1, "f(handshake)")
        self.authenticate = function

    @property
    def echoes(self) -> bool:
        """Whether messages have no handler, and so are broadcast to everybody."""
        return self.message is None and not self.typed

    def route(self, frame: Frame) -> tuple[Function | None, Any]:
        """Return the function for a message and the decoded message.

        The function is None when the message is to be broadcast. Raises `CommandError`.
        """
        if self.typed:
            kind = self.dialect.type_of(frame)
            typed = None if kind is None else self.typed.get(kind)
            if typed is not None:
                return typed.function, typed.decode(frame)
            if self.message is None:
                raise _unknown_type(kind)
        if self.message is None:
            return None, self._either(frame)
        return self.message.function, self.message.decode(frame)

    def _message_handler(self, function: Function, default: Any) -> MessageHandler:
        check_arity(function, 2, 2, "f(client, message)")
        annotation = annotation_of(function, 1, default)
        if annotation is Any and default is not str:
            # A message that has a type is JSON, whatever its handler says of it.
            annotation = default
        decode = self.dialect.decoder(annotation)
        return MessageHandler(function, decode, takes_text=annotation in (str, str | bytes))
