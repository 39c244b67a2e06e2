"""Handlers: arity, annotations, duplicates, and which function a message finds.

The annotations of this module are strings (the future import above all), as in most applications.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

from hubbub import Client, Close, CommandError, Frame, Handshake
from hubbub.dialect_plain import PlainDialect
from hubbub.handlers import Handlers, annotation_of, check_arity

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTheTypeChecker


class Say(msgspec.Struct, tag="say"):
    text: str


class Move(msgspec.Struct, tag="move"):
    x: int


@dataclass
class Point:
    x: int


class Order(pydantic.BaseModel):
    amount: int


def made() -> Handlers:
    return Handlers(PlainDialect())


def text(data: str) -> Frame:
    return Frame(data.encode(), True)


# What handlers may look like


def one(client: Client) -> None: ...
def two(client: Client, more: Any) -> None: ...
def own_default(client: Client, more: int = 7) -> None: ...
def two_and_own(client: Client, more: Any, own: int = 7) -> None: ...
def anything(*arguments: Any) -> None: ...
def one_and_anything(client: Client, *rest: Any, key: int = 0) -> None: ...
def with_keywords(client: Client, **options: Any) -> None: ...
def none() -> None: ...
def three(client: Client, more: Any, too_many: Any) -> None: ...
def three_and_anything(client: Client, more: Any, too_many: Any, *rest: Any) -> None: ...
def keyword_only(client: Client, *, more: Any) -> None: ...


class Callables:
    def __call__(self, client: Client, message: bytes) -> None: ...
    def method(self, client: Client, message: bytes) -> None: ...
    @staticmethod
    def static(client: Client, message: bytes) -> None: ...


@pytest.mark.parametrize(
    ("function", "arity"),
    [
        (one, 1),
        (two, 2),
        (own_default, 1),
        (two_and_own, 2),
        (anything, 2),
        (one_and_anything, 2),
        (with_keywords, 1),
        (Callables(), 2),
        (Callables().method, 2),
        (functools.partial(three, too_many="bound"), 2),
    ],
)
def test_a_function_is_called_with_as_much_as_it_wants(
    function: Callable[..., None], arity: int
) -> None:
    assert check_arity(function, 1, 2, "f(client)") == arity
    function(*range(arity))


@pytest.mark.parametrize("function", [none, three, three_and_anything, keyword_only])
def test_a_function_of_another_shape_is_refused_by_name(function: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=function.__name__):
        check_arity(function, 1, 2, "f(client)")


def test_a_parameter_with_a_default_is_filled_if_the_hub_always_fills_it() -> None:
    assert check_arity(own_default, 2, 2, "f(client, message)") == 2


def test_every_registration_names_the_shape_that_it_expects() -> None:
    handlers = made()
    shapes = {
        "f(client, handshake: Handshake)": handlers.add_connect,
        "f(client, close: Close)": handlers.add_disconnect,
        "f(client, count: int)": handlers.add_drop,
        "f(client, message)": handlers.set_message,
        "f(handshake)": handlers.set_authenticate,
    }
    for shape, register in shapes.items():
        with pytest.raises(TypeError) as error:
            register(none)
        assert shape in str(error.value)
    with pytest.raises(TypeError, match="message"):
        handlers.set_validate(one)
    with pytest.raises(TypeError, match="message"):
        handlers.add_typed("say", one)


def test_lists_and_their_arities() -> None:
    handlers = made()

    def meets(client: Client, handshake: Handshake) -> None: ...
    def leaves(client: Client, close: Close) -> None: ...

    handlers.add_connect(one)
    handlers.add_connect(meets)
    handlers.add_disconnect(leaves)
    handlers.add_drop(two)
    assert handlers.connect == [(one, 1), (meets, 2)]
    assert handlers.disconnect == [(leaves, 2)]
    assert handlers.drop == [two]


def test_what_there_is_one_of_is_registered_once() -> None:
    handlers = made()
    handlers.set_message(two)
    handlers.add_typed("say", two)
    handlers.set_validate(two)
    handlers.set_authenticate(one)
    with pytest.raises(ValueError, match="on_message"):
        handlers.set_message(two)
    with pytest.raises(ValueError, match="'say'"):
        handlers.add_typed("say", two)
    with pytest.raises(ValueError, match="validate"):
        handlers.set_validate(two)
    with pytest.raises(ValueError, match="authenticate"):
        handlers.set_authenticate(one)


# Annotations


def takes_str(client: Client, message: str) -> None: ...
def takes_bytes(client: Client, message: bytes) -> None: ...
def takes_dict(client: Client, message: dict[str, int]) -> None: ...
def takes_struct(client: Client, message: Say) -> None: ...
def takes_union(client: Client, message: Say | Move) -> None: ...
def takes_dataclass(client: Client, message: Point) -> None: ...
def takes_model(client: Client, message: Order) -> None: ...
def takes_frame(client: Client, message: Frame) -> None: ...
def takes_list(client: Client, message: list[Point]) -> None: ...
def takes_anything(client: Client, message) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "data", "message"),
    [
        (takes_str, "hi", "hi"),
        (takes_anything, "hi", "hi"),
        (takes_dict, '{"a": 1}', {"a": 1}),
        (takes_struct, '{"type": "say", "text": "hi"}', Say("hi")),
        (takes_union, '{"type": "move", "x": 1}', Move(1)),
        (takes_dataclass, '{"x": 1}', Point(1)),
        (takes_list, '[{"x": 1}]', [Point(1)]),
        (takes_model, '{"amount": 3}', Order(amount=3)),
        (one_and_anything, "hi", "hi"),
    ],
)
def test_the_annotation_decides_what_a_handler_gets(
    function: Callable[..., None], data: str, message: Any
) -> None:
    handlers = made()
    handlers.set_message(function)
    assert handlers.route(text(data)) == (function, message)


@pytest.mark.parametrize(
    "function",
    [
        takes_bytes,
        Callables(),
        Callables().method,
        Callables.static,
        functools.partial(takes_bytes),
        functools.partial(Callables()),
        functools.wraps(takes_bytes)(lambda *arguments: None),
    ],
)
def test_annotations_of_all_kinds_of_callables(function: Callable[..., None]) -> None:
    assert annotation_of(function, 1, str) is bytes


def test_annotations_that_are_no_strings() -> None:
    def handler(client: Any, message: Any) -> None: ...

    handler.__annotations__ = {"client": Client, "message": Say}
    assert annotation_of(handler, 1, str) is Say


def test_no_annotation_or_no_such_parameter_is_the_default() -> None:
    for function in (takes_anything, one, anything, one_and_anything):
        assert annotation_of(function, 1, "default") == "default"


def test_a_type_of_the_enclosing_function_that_it_uses_is_found() -> None:
    class Local(msgspec.Struct):
        n: int

    def handler(client: Client, message: Local) -> Local:
        return Local(message.n)

    assert annotation_of(handler, 1, str) is Local


def test_only_the_messages_annotation_has_to_be_resolved() -> None:
    """`Client` is often imported for the type checker alone."""

    def handler(client: OnlyForTheTypeChecker, message: bytes) -> OnlyForTheTypeChecker:
        return client

    assert annotation_of(handler, 1, str) is bytes


@pytest.mark.parametrize("annotation", ["Nowhere", "Say.nothing", "1 +", "OnlyForTheTypeChecker"])
def test_an_annotation_that_cannot_be_resolved_is_a_clear_type_error(annotation: str) -> None:
    def handler(client: Any, message: Any) -> None: ...

    handler.__annotations__["message"] = annotation
    with pytest.raises(TypeError, match="define the type at the module's level") as error:
        made().set_message(handler)
    assert "handler" in str(error.value)
    assert repr(annotation) in str(error.value)


# Routing


def test_without_handlers_a_message_is_for_everybody() -> None:
    handlers = made()
    assert handlers.echoes
    assert handlers.route(text("hi")) == (None, "hi")
    assert handlers.route(Frame(b"\x00", False)) == (None, b"\x00")


def test_typed_messages_find_their_handler_and_the_rest_the_general_one() -> None:
    handlers = made()
    handlers.add_typed("say", takes_struct)
    handlers.add_typed("raw", takes_anything)
    assert not handlers.echoes
    say = text('{"type": "say", "text": "hi"}')
    assert handlers.route(say) == (takes_struct, Say("hi"))
    assert handlers.route(text('{"type": "raw", "n": 1}')) == (
        takes_anything,
        {"type": "raw", "n": 1},
    )
    for data in ('{"type": "other"}', "hello", "{}"):
        with pytest.raises(CommandError) as error:
            handlers.route(text(data))
        assert error.value.code == "unknown_type"
    handlers.set_message(takes_str)
    assert handlers.route(text('{"type": "other"}')) == (takes_str, '{"type": "other"}')
    assert handlers.route(say) == (takes_struct, Say("hi"))
