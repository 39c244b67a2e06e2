"""Signatures: with how many arguments a function is called, and every kind that cannot be called.

The annotations of this module are strings (the future import above all), as in most applications.
What the decorators of a hub do with all this is in test_handlers.
"""

from __future__ import annotations

import asyncio
import functools
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Literal, NewType, NoReturn, Protocol

import fastapi
import msgspec
import pytest

from hubbub import Client, Handshake, Identity
from hubbub.hub.signature import CLIENT, Given, Shape, annotation_of, name_of, parameter_name, read

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForTheTypeChecker

SHAPE = Shape("decorator", (CLIENT, Given("handshake", Handshake)), 1)
EITHER = Shape("decorator", (CLIENT, Given("more")), 1)
BOTH = Shape("decorator", (CLIENT, Given("message")), 2)
WHO = Shape("authenticate", (Given("handshake", Handshake),), 1, (Identity, str), "write Identity")
TICK = Shape("every(…)", (), 0)


class Say(msgspec.Struct, tag="say"):
    text: str


def takes_bytes(client: Client, message: bytes) -> None: ...
def takes_anything(client: Client, message) -> None: ...  # type: ignore[no-untyped-def]


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
    assert read(function, EITHER) == arity
    function(*range(arity))


@pytest.mark.parametrize("function", [none, three, three_and_anything, keyword_only])
def test_a_function_of_another_shape_is_refused_by_name(function: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=function.__name__):
        read(function, SHAPE)


def test_a_parameter_with_a_default_is_filled_if_the_hub_always_fills_it() -> None:
    assert read(own_default, BOTH) == 2


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


def test_a_function_may_use_what_is_assigned_after_it() -> None:
    class Point:
        """A local type."""

    def handler(client: Any, point: Point) -> None:
        print(later, Point)

    assert annotation_of(handler, 1, None) is Point
    later = 1


def test_only_the_messages_annotation_has_to_be_resolved() -> None:
    """`Client` is often imported for the type checker alone."""

    def handler(client: OnlyForTheTypeChecker, message: bytes) -> OnlyForTheTypeChecker:
        return client

    assert annotation_of(handler, 1, str) is bytes


# Arity, again


def wanted(client: Client, handshake: Handshake | None = None) -> None: ...
def wanted_too(client: Client, handshake: Handshake = None) -> None: ...  # type: ignore[assignment]


@pytest.mark.parametrize("function", [wanted, wanted_too])
def test_fault_14_a_default_is_filled_if_its_annotation_asks_for_it(
    function: Callable[..., None],
) -> None:
    assert read(function, SHAPE) == 2


def test_a_function_whose_parameters_nobody_can_read_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dict\.update does not tell its parameters"):
        read({}.update, BOTH)


def test_builtin_methods_are_functions_too() -> None:
    assert read([].append, SHAPE) == 1


# Wrappers


def three_and_reply(client: Client, message: bytes, db: int) -> str:
    return f"{message!r} {db}"


def depends(client: Client, message: bytes, db: int = fastapi.Depends(int)) -> None: ...
def keyword_db(client: Client, message: bytes, *, db: int) -> None: ...


@pytest.mark.parametrize("package", ["fastapi.params", "fast_depends.dependencies.model"])
def test_fault_14_a_default_that_only_a_framework_fills_is_refused(package: str) -> None:
    marker = type("Depends", (), {"__module__": package})()

    def handler(client: Client, message: bytes, db: object = marker) -> None: ...

    with pytest.raises(TypeError, match=r"leaves its parameter 'db' to Depends\(…\)"):
        read(handler, BOTH)


def test_a_wrapper_answers_for_its_own_parameters_and_for_what_the_wrapped_returns() -> None:
    @functools.wraps(three_and_reply)
    def with_db(client: Client, message: bytes) -> None:
        client.send(three_and_reply(client, message, 5))

    @functools.wraps(three_and_reply)
    def with_more(client, message, db):  # type: ignore[no-untyped-def]
        ...

    assert read(with_db, BOTH) == 2
    assert annotation_of(with_db, 1, str) is bytes
    with pytest.raises(TypeError, match=r"three_and_reply \(.*\) takes 3 parameters"):
        read(with_more, BOTH)


@pytest.mark.parametrize("function", [three_and_reply, keyword_db, depends])
def test_a_wrapper_that_takes_anything_may_pass_on_more(function: Callable[..., Any]) -> None:
    @functools.wraps(function)
    async def injects(*arguments: Any, **keywords: Any) -> None: ...

    assert read(injects, BOTH) == 2
    assert annotation_of(injects, 1, str) is bytes


def test_fault_14_a_wrapper_that_takes_anything_cannot_make_up_for_what_is_missing() -> None:
    @functools.wraps(one)
    def passes_on(*arguments: Any) -> None:
        one(*arguments)

    with pytest.raises(TypeError, match=r"one \(.*\) takes one parameter"):
        read(passes_on, BOTH)
    assert read(functools.lru_cache(two), BOTH) == 2


# Names


def test_a_name_comes_with_its_file_and_line() -> None:
    def inner() -> None: ...

    line = inner.__code__.co_firstlineno
    assert name_of(inner) == f"inner (test_signature.py:{line})"
    assert name_of(functools.partial(inner)) == name_of(inner)
    assert name_of(lambda: None).startswith("<lambda> (test_signature.py:")
    assert name_of(Callables()).startswith("Callables.__call__ (test_signature.py:")
    assert name_of(Callables().method) == name_of(Callables.method)
    assert name_of(functools.wraps(inner)(lambda: None)) == name_of(inner)
    assert name_of(len) == "len"
    assert name_of(7) == "7"
    assert len(name_of("x" * 1000)) == 80


def test_a_parameter_is_named() -> None:
    assert parameter_name(takes_bytes, 1) == "message"
    assert parameter_name(anything, 1) == "arguments"


# What somebody reads, and what nobody does


class Custom:
    """Can be awaited, and is no coroutine."""

    def __await__(self) -> Iterator[None]:
        yield


class Shown(Protocol):
    def read(self) -> str: ...


Name = NewType("Name", str)
T = typing.TypeVar("T")

READ_BY_NOBODY = [
    str,
    int,
    bytes,
    dict[str, Any],
    list[str],
    Say,
    "str | None",
    Awaitable[str],
    Coroutine[Any, Any, dict[str, int]],
    "asyncio.Future[int]",
    Iterator[None],
    AsyncIterator[None],
    Name,
    typing.Annotated[str, "a name"],
    Literal["yes"],
    type[int],
]
NOTHING_TO_READ = [
    None,
    "None",
    type(None),
    Any,
    object,
    NoReturn,
    typing.Never,
    bool,
    "bool | None",
    Literal[True],
    Awaitable[None],
    Awaitable[Any],
    Awaitable,
    Coroutine[Any, Any, bool],
    "asyncio.Future[None]",
    "asyncio.Task[None]",
    Custom,
    T,
    "OnlyForTheTypeChecker",
    "1 +",
]


def returning(annotation: Any) -> Callable[..., Any]:
    def handler(client: Client, message: Any) -> Any: ...

    handler.__annotations__["return"] = annotation
    return handler


@pytest.mark.parametrize("annotation", READ_BY_NOBODY)
def test_fault_14_what_nobody_reads_is_not_returned(annotation: Any) -> None:
    with pytest.raises(TypeError, match=r"returns .*: nobody reads that; to answer, call client"):
        read(returning(annotation), BOTH)


@pytest.mark.parametrize("annotation", NOTHING_TO_READ)
def test_what_may_be_returned(annotation: Any) -> None:
    assert read(returning(annotation), BOTH) == 2


def test_fault_14_what_a_coroutine_returns_is_not_awaited_once_more() -> None:
    async def twice(client: Client, message: str) -> Awaitable[None]:
        return asyncio.sleep(0)

    with pytest.raises(TypeError, match=r"returns Awaitable\[None\]"):
        read(twice, BOTH)


@pytest.mark.parametrize(
    ("annotation", "is_right"),
    [
        (Identity, True),
        ("str | None", True),
        (Name, True),
        ("Literal[False] | str", True),
        ("Awaitable[Identity | None]", True),
        (bool, False),
        ("int | None", False),
        ("Literal[True]", False),
        (dict[str, str], False),
    ],
)
def test_fault_14_an_authenticate_handler_returns_what_is_understood(
    annotation: Any, is_right: bool
) -> None:
    def who(handshake: Handshake) -> Any: ...

    who.__annotations__["return"] = annotation
    if is_right:
        assert read(who, WHO) == 1
    else:
        with pytest.raises(TypeError, match="write Identity"):
            read(who, WHO)


# Types of parameters


class Wider(Protocol):
    def send(self, data: Any) -> bool: ...


@typing.runtime_checkable
class Checkable(Protocol):
    def send(self, data: Any) -> bool: ...


@pytest.mark.parametrize(
    "annotation",
    [
        Client,
        "Client",
        object,
        Any,
        "Client | None",
        "str | Client",
        Wider,
        Checkable,
        T,
        typing.Annotated[Client, "who sent it"],
        "OnlyForTheTypeChecker",
        NewType("Sender", Client),
    ],
)
def test_an_annotation_that_a_client_fits_passes(annotation: Any) -> None:
    def handler(client: Any, message: str) -> None: ...

    handler.__annotations__["client"] = annotation
    assert read(handler, BOTH) == 2


@pytest.mark.parametrize(
    "annotation",
    [str, "str", "str | None", None, dict[str, Any], Handshake, typing.Annotated[str, "x"]],
)
def test_fault_14_an_annotation_that_no_client_fits_does_not(annotation: Any) -> None:
    def handler(sender: Any, message: str) -> None: ...

    handler.__annotations__["sender"] = annotation
    with pytest.raises(TypeError, match=r"its parameter 'sender' is .*, and what comes is Client"):
        read(handler, BOTH)


@pytest.mark.parametrize(("annotation", "is_right"), [(int, True), (float, True), (str, False)])
def test_a_count_is_a_number(annotation: Any, is_right: bool) -> None:
    def handler(client: Client, count: Any) -> None: ...

    handler.__annotations__["count"] = annotation
    shape = Shape("on_drop", (CLIENT, Given("count", int)), 2)
    if is_right:
        assert read(handler, shape) == 2
    else:
        with pytest.raises(TypeError, match="'count' is str, and what comes is int"):
            read(handler, shape)


def test_a_tick_takes_nothing_but_what_is_its_own() -> None:
    def own(number: int = 5) -> None: ...

    assert read(own, TICK) == 0
    assert read(lambda *arguments: None, TICK) == 0
    with pytest.raises(TypeError, match=r"takes one parameter\. Expected: f\(\), def or async def"):
        read(takes_self, TICK)


def takes_self(self: object) -> None: ...


def test_a_parameter_called_self_of_a_plain_function_is_a_parameter() -> None:
    assert read(takes_self, SHAPE) == 1
