"""Handlers: arity, annotations, duplicates, and which function a message finds.

The annotations of this module are strings (the future import above all), as in most applications.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NewType, TypedDict, cast

import fastapi
import msgspec
import pydantic
import pytest

from hubbub import Client, Close, CommandError, Frame, Handshake, Hub
from hubbub.hub.handlers import Handlers

if TYPE_CHECKING:
    pass


class Say(msgspec.Struct, tag="say"):
    text: str


class Move(msgspec.Struct, tag="move"):
    x: int


@dataclass
class Point:
    x: int


class Order(pydantic.BaseModel):
    amount: int


@pydantic.dataclasses.dataclass
class Bought:
    amount: Annotated[int, pydantic.Field(gt=0)]
    type: Literal["buy"] = "buy"


class Upper(pydantic.BaseModel):
    type: Annotated[Literal["SAY"], pydantic.BeforeValidator(str.upper)]


class Stripped(pydantic.BaseModel, extra="forbid"):
    text: str

    @pydantic.model_validator(mode="before")
    @classmethod
    def strip(cls, found: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name != "type"}


class Checked(pydantic.BaseModel):
    kind: Literal["talk"] = pydantic.Field(alias="type")
    text: Annotated[str, pydantic.BeforeValidator(str.strip)]

    @pydantic.field_validator("kind")
    @classmethod
    def check(cls, kind: str) -> str:
        return kind


def made() -> Handlers:
    return Handlers()


def text(data: str) -> Frame:
    return Frame(data.encode(), True)


def one(client: Client) -> None: ...
def two(client: Client, more: Any) -> None: ...
def gets(handshake: Handshake) -> None: ...
def none() -> None: ...
def one_and_anything(client: Client, *rest: Any, key: int = 0) -> None: ...


def test_every_registration_names_the_shape_that_it_expects() -> None:
    handlers = made()
    shapes = {
        "f(client: Client) or f(client: Client, handshake: Handshake)": handlers.add_connect,
        "f(client: Client) or f(client: Client, close: Close)": handlers.add_disconnect,
        "f(client: Client, count: int)": handlers.add_drop,
        "f(client: Client, message)": handlers.set_message,
        "f(handshake: Handshake)": handlers.set_authenticate,
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
    handlers.set_authenticate(gets)
    with pytest.raises(ValueError, match="on_message"):
        handlers.set_message(two)
    with pytest.raises(ValueError, match="'say'"):
        handlers.add_typed("say", two)
    with pytest.raises(ValueError, match="validate"):
        handlers.set_validate(two)
    with pytest.raises(ValueError, match="authenticate"):
        handlers.set_authenticate(gets)


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


@pytest.mark.parametrize("annotation", ["Nowhere", "Say.nothing", "1 +", "OnlyForTheTypeChecker"])
def test_an_annotation_that_cannot_be_resolved_is_a_clear_type_error(annotation: str) -> None:
    def handler(client: Any, message: Any) -> None: ...

    handler.__annotations__["message"] = annotation
    with pytest.raises(TypeError, match="define the type at the module's level") as error:
        made().set_message(handler)
    assert "handler" in str(error.value)
    assert repr(annotation) in str(error.value)


# Entry 14: what cannot work is refused when it is registered, with what to write


class Talk(msgspec.Struct, tag="talk"):
    text: str


class Event(msgspec.Struct, tag_field="event", tag="say"):
    text: str


class Kind(msgspec.Struct, tag_field="kind"):
    text: str


class Row(msgspec.Struct, array_like=True):
    x: int


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    x: int


class Own(msgspec.Struct):
    type: Literal["talk"]


class Pair(NamedTuple):
    x: int


class Numbered(TypedDict):
    type: int


class Spoken(pydantic.BaseModel):
    type: Literal["talk", "shout"]


class Aliased(pydantic.BaseModel):
    kind: Literal["talk"] = pydantic.Field(alias="type")


class Closed(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int


class Drawn(msgspec.Struct, tag_field="shape", tag="circle"):
    r: float


class Square(msgspec.Struct, tag_field="shape", tag="square"):
    a: float


class Holder(msgspec.Struct):
    client: Client


class Chat:
    def joined(self, client):  # type: ignore[no-untyped-def]
        ...

    def said(self, client, message):  # type: ignore[no-untyped-def]
        ...

    async def stream(self, client: Client, message: str) -> AsyncIterator[int]:
        yield 1


def get_db() -> int:
    return 0


def session(client: Client, message: str, db: int = fastapi.Depends(get_db)) -> None: ...
def annotated(
    client: Client, message: str, db: Annotated[int, fastapi.Depends(get_db)]
) -> None: ...
def as_message(client: Client, db: int = fastapi.Depends(get_db)) -> None: ...
def query_token(handshake: Handshake, token: str = fastapi.Query("")) -> str:
    return token


def generator(client: Client, message: str) -> Iterator[None]:
    yield


async def replies(client: Client, message: str) -> dict[str, str]:
    return {"got": message}


async def coroutine(client: Client, message: str) -> None: ...


def swapped(message: str, client: Client) -> None: ...
def swapped_bare(message, client):  # type: ignore[no-untyped-def]
    ...


def socket(websocket: fastapi.WebSocket, message: str) -> None: ...
def code(client: Client, code: int) -> None: ...
def three(client: Client, code: int, reason: str) -> None: ...
def keyword_only(client: Client, *, message: str) -> None: ...
def yes_or_no(handshake: Handshake) -> bool:
    return True


def tick(now: float) -> None: ...
def ticks_text() -> str:
    return "tick"


def hub() -> Any:
    """A hub for wrong uses, which a type checker is not to see."""
    return Hub()


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "on without parentheses": (
        lambda: hub().on(two),
        r'@hub\.on: two \(test_handlers.py:\d+\) stands where the type belongs: write @hub\.on\("say"\)',
    ),
    "on with empty brackets": (
        lambda: hub().on(),
        r'@hub\.on without its kind: write @hub\.on\("say"\) for messages like',
    ),
    "every with empty brackets": (
        lambda: hub().every(),
        r"@hub\.every without its seconds: write @hub\.every\(5\) to call",
    ),
    "every with a keyword alone": (
        lambda: hub().every(while_connected=True),
        r"@hub\.every without its seconds",
    ),
    "on with a Struct": (lambda: hub().on(Talk), r"@hub\.on: Talk stands where the type belongs"),
    "on with no string": (lambda: hub().on(5), r"@hub\.on\(5\): the type of a message is a string"),
    "every without parentheses": (
        lambda: hub().every(none),
        r"@hub\.every: none \(.*\) stands where the period belongs: write @hub\.every\(5\)",
    ),
    "every with text": (lambda: hub().every("5"), r"@hub\.every\('5'\): .* a number of seconds"),
    "every with a switch": (lambda: hub().every(True), "a number of seconds above zero"),
    "every with a timedelta": (lambda: hub().every(timedelta(seconds=5)), "a number of seconds"),
    "a tick with a parameter": (
        lambda: hub().every(5)(tick),
        r"tick \(.*\) takes one parameter. Expected: f\(\)",
    ),
    "a tick that returns": (
        lambda: hub().every(5)(ticks_text),
        r"ticks_text \(.*\) returns str: nobody reads that",
    ),
    "a dependency": (
        lambda: hub().on_message(session),
        r"@hub\.on_message: session \(.*\) leaves its parameter 'db' to Depends\(…\)",
    ),
    "an annotated dependency": (lambda: hub().on_message(annotated), r"'db' to Depends\(…\)"),
    "a dependency as message": (lambda: hub().on("x")(as_message), r"'db' to Depends\(…\)"),
    "a dependency of on_connect": (lambda: hub().on_connect(as_message), r"to Depends\(…\)"),
    "a query parameter": (lambda: hub().authenticate(query_token), r"'token' to Query\(…\)"),
    "a generator": (
        lambda: hub().on_message(generator),
        r"generator \(.*\) has a yield in it, .*: its body would never run",
    ),
    "an async generator": (lambda: hub().on_message(Chat().stream), r"stream \(.*\) has a yield"),
    "a partial generator": (
        lambda: hub().validate(functools.partial(generator)),
        r"@hub\.validate: generator \(.*\) has a yield",
    ),
    "a reply": (
        lambda: hub().on_message(replies),
        r"replies \(.*\) returns dict\[str, str\]: nobody reads that; to answer, call client\.send",
    ),
    "a wrong order": (
        lambda: hub().on_message(swapped),
        r"swapped \(.*\) has 'client' as its second parameter, which gets the message",
    ),
    "a wrong order without types": (
        lambda: hub().on("x")(swapped_bare),
        r"@hub\.on\('x'\): swapped_bare \(.*\) has 'client' as its second",
    ),
    "a socket": (
        lambda: hub().on_message(socket),
        r"'websocket' is fastapi\.WebSocket, and what comes is Client",
    ),
    "a code": (lambda: hub().on_disconnect(code), r"'code' is int, and what comes is Close"),
    "three parameters": (
        lambda: hub().on_disconnect(three),
        r"takes 3 parameters\. Expected: f\(client: Client\) or f\(client: Client, close: Close\)",
    ),
    "too few": (lambda: hub().on_drop(one), r"@hub\.on_drop: one \(.*\) takes one parameter"),
    "keyword-only": (
        lambda: hub().on_message(keyword_only),
        r"keyword-only parameter 'message' without a default",
    ),
    "a bool for a user": (
        lambda: hub().authenticate(yes_or_no),
        r"yes_or_no \(.*\) returns bool: return an Identity, or a user's name; None refuses",
    ),
    "a method without an object": (
        lambda: hub().on_message(Chat.said),
        r"Chat\.said \(.*\) is a method without an object: .* as in chat\.said",
    ),
    "such a method of two": (lambda: hub().on_connect(Chat.joined), r"its 'self' would be the cl"),
    "a class": (lambda: hub().on_message(Chat), "Chat is a class: register a method of an object"),
    "a class method": (
        lambda: hub().on_message(classmethod(cast("Any", two))),
        "is a class method: register it from the class",
    ),
    "text": (lambda: hub().on_message("said"), r"@hub\.on_message: 'said' is no function"),
    "a coroutine": (
        lambda: hub().on_message(coroutine(cast("Client", None), "")),
        r"coroutine \(.*\) was called already: register the function, without \(\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_fault_14_a_function_that_cannot_work_is_a_type_error_that_says_what_to_write(
    case: str,
) -> None:
    register, words = WRONG[case]
    with pytest.raises(TypeError, match=words):
        register()


@pytest.mark.parametrize(
    "name",
    [
        *("on_connect", "on_message", "on_disconnect", "on_drop", "authenticate", "validate"),
        *("on_join", "on_leave", "presence_info"),
    ],
)
def test_fault_14_empty_brackets_are_a_type_error_that_says_what_to_write(name: str) -> None:
    decorator = getattr(hub(), name)
    with pytest.raises(
        TypeError, match=rf"write @hub\.{name} without brackets, above the function"
    ):
        decorator()


def test_a_function_that_is_asked_in_the_middle_of_a_turn_is_not_asked_to_be_async() -> None:
    with pytest.raises(TypeError, match=r"Expected: f\(client: Client, room: str\), def$"):
        hub().presence_info(lambda client: None)


@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("nan"), float("inf")])
def test_fault_14_a_period_that_cannot_be_is_a_value_error_before_the_function_comes(
    seconds: float,
) -> None:
    with pytest.raises(ValueError, match=rf"@hub\.every\({seconds!r}\): .* above zero"):
        Hub().every(seconds)


def taking(annotation: Any) -> Callable[..., None]:
    def handler(client: Client, it: Any) -> None: ...

    handler.__annotations__["it"] = annotation
    return handler


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Talk, "Talk is for messages of the type 'talk', not 'say'"),
        (Talk | Move, r"Talk \| Move is for messages of the type 'move' or 'talk', not 'say'"),
        (Own, "Own is for messages of the type 'talk', not 'say'"),
        (Spoken, "Spoken is for messages of the type 'shout' or 'talk', not 'say'"),
        (Aliased, "Aliased is for messages of the type 'talk', not 'say'"),
        (Event, "Event has its tag in the field 'event', .* leave tag_field away"),
        (Row, "no JSON object with the type 'say' fits Row"),
        (Strict, "no JSON object with the type 'say' fits Strict"),
        (Closed, "no JSON object with the type 'say' fits Closed"),
        (Pair, "no JSON object with the type 'say' fits Pair"),
        (Numbered, "no JSON object with the type 'say' fits Numbered"),
        (list[int], r"no JSON object with the type 'say' fits list\[int\]"),
        (int | None, r"no JSON object with the type 'say' fits int \| None"),
        (dict[str, int], r"no JSON object with the type 'say' fits dict\[str, int\]"),
        (Bought, "Bought is for messages of the type 'buy', not 'say'"),
        (Checked, "Checked is for messages of the type 'talk', not 'say'"),
    ],
)
def test_fault_14_a_type_that_no_such_message_fits_is_refused(annotation: Any, words: str) -> None:
    expected = rf"@hub\.on\('say'\): handler \(.*\) cannot get its parameter 'it': {words}"
    with pytest.raises(TypeError, match=expected):
        Hub().on("say")(taking(annotation))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Say, Say("hi")),
        (Say | Move, Say("hi")),
        (dict[str, str], {"type": "say", "text": "hi"}),
        (dict[str, Any] | list[int], {"type": "say", "text": "hi"}),
        (object, {"type": "say", "text": "hi"}),
        (str, '{"type": "say", "text": "hi"}'),
        (str | None, '{"type": "say", "text": "hi"}'),
    ],
)
def test_a_type_that_such_a_message_fits_gets_it(annotation: Any, message: Any) -> None:
    handlers = made()
    handlers.add_typed("say", taking(annotation))
    assert handlers.route(text('{"type": "say", "text": "hi"}'))[1] == message


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Upper, Upper(type="SAY")),
        (Stripped, Stripped(text="hi")),
        (pydantic.RootModel[Upper | Checked], pydantic.RootModel(Upper(type="SAY"))),
    ],
)
def test_fault_14_what_a_validator_makes_fit_is_no_mistake(annotation: Any, message: Any) -> None:
    handlers = made()
    handlers.add_typed("say", taking(annotation))
    assert handlers.route(text('{"type": "say", "text": "hi"}'))[1].model_dump() == (
        message.model_dump()
    )


@pytest.mark.parametrize("annotation", [Bought, Annotated[Bought, "what"]])
def test_fault_14_a_dataclass_of_pydantic_keeps_its_rules(annotation: Any) -> None:
    handlers = made()
    handlers.add_typed("buy", taking(annotation))
    assert handlers.route(text('{"type": "buy", "amount": 2}'))[1] == Bought(2)
    with pytest.raises(CommandError, match=r"invalid_message: amount: .* greater than 0"):
        handlers.route(text('{"type": "buy", "amount": -2}'))


def test_a_struct_may_be_one_shape_of_a_message_with_another_type() -> None:
    handlers = made()
    handlers.add_typed("draw", taking(Drawn | Square))
    handlers.add_typed("round", taking(Drawn))
    for kind in ("draw", "round"):
        frame = text(f'{{"type": "{kind}", "shape": "circle", "r": 2}}')
        assert handlers.route(frame)[1] == Drawn(2)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Client, "Client is no type that a message can have"),
        (Close, "Close is no type that a message can have"),
        (Handshake, "Handshake is no type that a message can have"),
        (fastapi.WebSocket, "WebSocket is no type that a message can have"),
        (list[Client], r"Client \(within list\[.*Client\]\) is no type that a message can have"),
        (Holder, r"Client \(within Holder\) is no type that a message can have"),
        (Callable[[int], int], "is no type that a message can have, which are str, bytes"),
        (list[Order], "the pydantic model Order stands inside another type; .* RootModel"),
        (Order | Say, "the pydantic model Order stands inside another type"),
        (Order | None, "the pydantic model Order stands inside another type"),
        (
            Annotated[Upper | Checked, pydantic.Field(discriminator="type")],
            "the pydantic model Upper stands inside another type",
        ),
        (list[Bought], "the pydantic model Bought stands inside another type"),
        (dict[str, Annotated[Bought, "what"]] | None, "the pydantic model Bought stands inside"),
        (Annotated[str, msgspec.Meta(max_length=5)], r"Meta\(max_length=5\) is a constraint of JS"),
        ("Nowhere", r"the annotation 'Nowhere' cannot be resolved .* define the type at the mod"),
    ],
)
def test_fault_14_an_annotation_that_is_no_message_type_is_refused(
    annotation: Any, words: str
) -> None:
    expected = rf"@hub\.on_message: handler \(.*\) cannot get its parameter 'it': .*{words}"
    with pytest.raises(TypeError, match=expected):
        Hub().on_message(taking(annotation))


@pytest.mark.parametrize(
    ("annotation", "takes_text"),
    [
        (str | None, True),
        (Annotated[str, "what was said"], True),
        (NewType("Words", str), True),
        (str | bytes | None, True),
        (object, False),
        (bytes, False),
    ],
)
def test_fault_14_text_and_binary_are_taken_as_they_come_in_every_spelling(
    annotation: Any, takes_text: bool
) -> None:
    handlers = made()
    handlers.set_message(taking(annotation))
    assert handlers.message is not None
    assert handlers.message.takes_text is takes_text
    frame = Frame(b"hi", annotation is not bytes)
    assert handlers.route(frame)[1] == (b"hi" if annotation is bytes else "hi")


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_fault_14_binary_comes_in_the_type_that_was_asked_for(kind: Callable[..., Any]) -> None:
    handlers = made()
    handlers.set_message(taking(kind))
    message = handlers.route(Frame(b"\x00", False))[1]
    assert type(message) is kind
    assert bytes(message) == b"\x00"


def test_fault_14_the_second_of_two_is_refused_and_both_are_named() -> None:
    hub = Hub()

    def first(client: Client) -> None: ...
    def other(client: Client, message: str) -> None: ...

    hub.on_message(two)
    hub.on("say")(two)
    for register in (hub.on_message, hub.on("say")):
        with pytest.raises(ValueError, match=r"other \(.*\) .*: two \(.*\) is registered already"):
            register(other)
    for several in (hub.on_connect, hub.on_disconnect):
        several(first)
        with pytest.raises(ValueError, match=r"first \(.*\) is registered already"):
            several(first)
    chat = Chat()
    hub.on_connect(chat.joined)
    with pytest.raises(ValueError, match=r"Chat\.joined \(.*\) is registered already"):
        hub.on_connect(chat.joined)
    hub.on_connect(Chat().joined)


def test_a_function_that_was_refused_leaves_nothing_behind() -> None:
    handlers = made()
    for register in (handlers.set_message, handlers.set_validate, handlers.add_connect):
        with pytest.raises(TypeError):
            register(none)
    with pytest.raises(TypeError):
        handlers.add_typed("say", taking(Talk))
    assert (handlers.message, handlers.validate, handlers.connect, handlers.typed) == (
        None,
        None,
        [],
        {},
    )


# Routing


def test_where_rooms_have_rules_a_message_without_a_handler_is_for_nobody() -> None:
    handlers = made()
    handlers.forbid_relay()
    assert not handlers.relays
    assert not handlers.takes_messages
    with pytest.raises(CommandError) as error:
        handlers.route(text("hi"))
    assert error.value.code == "not_available"
    handlers.set_message(takes_str)
    assert handlers.takes_messages
    assert handlers.route(text("hi")) == (takes_str, "hi")


def test_without_handlers_a_message_is_for_everybody() -> None:
    handlers = made()
    assert handlers.relays
    assert handlers.takes_messages
    assert handlers.route(text("hi")) == (None, "hi")
    assert handlers.route(Frame(b"\x00", False)) == (None, b"\x00")


def test_typed_messages_find_their_handler_and_the_rest_the_general_one() -> None:
    handlers = made()
    handlers.add_typed("say", takes_struct)
    handlers.add_typed("raw", takes_anything)
    assert not handlers.relays
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
