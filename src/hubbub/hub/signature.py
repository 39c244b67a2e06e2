"""Signatures: what a function of the application takes and returns, read when it is registered.

What must not live here: what the functions are for (`handlers`) and what a message may be
(`dialect`). Pure functions: each returns what it read, or raises `TypeError` that names the
function and the parameter, says what was found, and what to write. `handlers` and `tasks` call it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Awaitable, Callable
from inspect import Parameter
from pathlib import PurePath
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from ..messages.types import is_union, shown, unmarked
from .client import Client

Function = Callable[..., Any]

_UNKNOWN = Parameter.empty
"""An annotation that is not there, or that only a type checker can resolve."""
_INJECTING = {"fastapi", "fast_depends"}
"""Packages whose markers (`Depends`, `Header`) stand for what the framework passes; a hub does not."""


class Given(NamedTuple):
    """One argument that the hub passes: its usual name, and its type (None: the annotation decides)."""

    name: str
    kind: type | None = None


class Shape(NamedTuple):
    """What the functions of one decorator look like.

    `decorator` as one writes it; `given` the arguments, of which the first `least` have to be taken;
    `returns` the types that may be returned beside None (a bool is what `client.send` answers, so
    that `return client.send(…)` is no mistake), `advice` what to write in place of another;
    `may_be_async` whether it may be an `async def`.
    """

    decorator: str
    given: tuple[Given, ...]
    least: int
    returns: tuple[type, ...] = (bool,)
    advice: str = "nobody reads that; to answer, call client.send(…), and return None"
    may_be_async: bool = True


def name_of(function: object) -> str:
    """Return a function's name for an error or the log, with its file and line where it has one."""
    is_running = inspect.iscoroutine(function) or inspect.isgenerator(function)
    target: Any = function if is_running else inspect.unwrap(_innermost(function))
    name = getattr(target, "__qualname__", None)
    if not isinstance(name, str):
        return _shown(function)
    name = name.rpartition("<locals>.")[2]
    code = getattr(target, "__code__", None) or getattr(target, "cr_code", None)
    if code is None:
        return name
    return f"{name} ({PurePath(code.co_filename).name}:{code.co_firstlineno})"


def read(function: Function, shape: Shape) -> int:
    """Return with how many arguments to call `function`; raise `TypeError` if that cannot work."""
    _check_callable(function, shape)
    _check_no_generator(function, shape)
    parameters = _parameters(function, shape)
    _check_bound(function, parameters, shape)
    if not _passes_on(function):
        _check_nothing_injected(function, parameters, shape)
    arity = _arity(function, parameters, shape)
    _check_order(function, parameters, shape)
    _check_types(function, parameters[:arity], shape)
    _check_return(function, shape)
    return arity


def annotation_of(function: Function, position: int, default: Any) -> Any:
    """Return the annotation of a positional parameter, resolved; `default` when there is none.

    Raises `TypeError` for one that cannot be resolved.
    """
    parameters = [p for p in _signature(function).parameters.values() if _is_positional(p)]
    if position >= len(parameters) or parameters[position].kind is Parameter.VAR_POSITIONAL:
        return default
    parameter = parameters[position]
    if parameter.annotation is Parameter.empty:
        return default
    try:
        return _resolved(function, parameter.annotation)
    except Exception as error:
        raise TypeError(
            f"the annotation {_written(parameter.annotation)!r} cannot be resolved ({error}); "
            "define the type at the module's level, and import it there at run time too"
        ) from None


def parameter_name(function: Function, position: int) -> str:
    """Return the name of a positional parameter."""
    parameters = [p for p in _signature(function).parameters.values() if _is_positional(p)]
    return parameters[min(position, len(parameters) - 1)].name


# What is no function to call


def _check_callable(function: Any, shape: Shape) -> None:
    if inspect.iscoroutine(function) or inspect.isgenerator(function):
        function.close()
        name = name_of(function)
        raise _wrong(shape, name, "was called already: register the function, without ()")
    if isinstance(function, type):
        raise _wrong(shape, name_of(function), "is a class: register a method of an object of it")
    if not callable(function):
        is_early = isinstance(function, classmethod)
        found = "is a class method: register it from the class" if is_early else "is no function"
        raise _wrong(shape, _shown(function), found)


def _check_no_generator(function: Function, shape: Shape) -> None:
    target = _innermost(function)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        found = "has a yield in it, which makes it a generator: its body would never run"
        raise _wrong(shape, name_of(function), found)


def _innermost(function: Any) -> Any:
    """Return the function that a call ends in: of a partial, a method or an object with `__call__`."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif isinstance(function, (type, types.BuiltinFunctionType)) or inspect.isfunction(
            function
        ):
            return function
        else:
            method = inspect.getattr_static(type(function), "__call__", None)
            if not inspect.isfunction(method):
                return function
            function = method


# Parameters


def _signature(function: Function) -> inspect.Signature:
    """Return the signature of a function; of a wrapper that only passes on, the wrapped one's."""
    return _inspected(function, follow_wrapped=_passes_on(function))


def _inspected(function: Function, *, follow_wrapped: bool) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # An annotation that only a type checker can resolve must not prevent the others' reading.
        return inspect.signature(
            function, follow_wrapped=follow_wrapped, annotation_format=Format.FORWARDREF
        )
    return inspect.signature(function, follow_wrapped=follow_wrapped)


def _is_wrapper(function: Function) -> bool:
    return hasattr(_innermost(function), "__wrapped__")


def _passes_on(function: Function) -> bool:
    """Tell whether a function is a wrapper (`functools.wraps`) that takes whatever comes.

    Such a wrapper may pass on more than it gets, and knows what the wrapped function returns.
    """
    if not _is_wrapper(function):
        return False
    try:
        own = _inspected(function, follow_wrapped=False)
    except ValueError:  # one in C, such as functools.lru_cache
        return True
    return any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in own.parameters.values())


def _is_positional(parameter: Parameter) -> bool:
    return parameter.kind not in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)


def _parameters(function: Function, shape: Shape) -> list[Parameter]:
    """Return the positional parameters."""
    try:
        parameters = list(_signature(function).parameters.values())
    except ValueError:
        found = "does not tell its parameters: put a function of your own around it"
        raise _wrong(shape, name_of(function), found) from None
    for parameter in parameters:
        is_required = parameter.default is Parameter.empty and not _passes_on(function)
        if parameter.kind is Parameter.KEYWORD_ONLY and is_required:
            found = (
                f"has the keyword-only parameter {parameter.name!r} without a default, and is "
                "called with positional arguments only"
            )
            raise _wrong(shape, name_of(function), found)
    return [parameter for parameter in parameters if _is_positional(parameter)]


def _check_bound(function: Function, parameters: list[Parameter], shape: Shape) -> None:
    """Refuse a method that no object is bound to: its `self` would be the client."""
    if not parameters or not shape.given or parameters[0].name not in ("self", "cls"):
        return
    target = inspect.unwrap(function)
    if inspect.isfunction(target) and "." in target.__qualname__.rpartition("<locals>.")[2]:
        method = target.__name__
        found = (
            f"is a method without an object: its {parameters[0].name!r} would be the "
            f"{shape.given[0].name}; register it from an object, as in chat.{method}"
        )
        raise _wrong(shape, name_of(function), found)


def _check_nothing_injected(function: Function, parameters: list[Parameter], shape: Shape) -> None:
    for parameter in parameters:
        marker = _injected(function, parameter)
        if marker is not None:
            found = (
                f"leaves its parameter {parameter.name!r} to {marker}, which only a route of the "
                "framework fills; call the dependency in the function"
            )
            raise _wrong(shape, name_of(function), found)


def _injected(function: Function, parameter: Parameter) -> str | None:
    """Return how a parameter's marker for the framework is called, None if it has none."""
    markers = [parameter.default]
    annotation = _known(function, parameter.annotation)
    if get_origin(annotation) is Annotated:
        markers += annotation.__metadata__
    for marker in markers:
        if type(marker).__module__.partition(".")[0] in _INJECTING:
            return f"{type(marker).__name__}(…)"
    return None


def _arity(function: Function, parameters: list[Parameter], shape: Shape) -> int:
    """Return how many of the given arguments the function takes.

    A parameter with a default is the application's own, unless the hub always passes that argument
    or the annotation asks for it.
    """
    most = len(shape.given)
    takes_any = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters)
    own = [p for p in parameters if p.kind is not Parameter.VAR_POSITIONAL]
    needed = sum(parameter.default is Parameter.empty for parameter in own)
    if _passes_on(function):
        needed = min(needed, most)
    if needed > most or (len(own) < shape.least and not takes_any):
        count = needed if needed > most else len(own)
        raise _wrong(shape, name_of(function), f"takes {_counted(count)}")
    if takes_any:
        return most
    takes = max(needed, shape.least)
    while takes < min(len(own), most) and _asks_for(function, own[takes], shape.given[takes]):
        takes += 1
    return takes


def _asks_for(function: Function, parameter: Parameter, given: Given) -> bool:
    annotation = _known(function, parameter.annotation)
    parts = get_args(annotation) if is_union(annotation) else (annotation,)
    return given.kind is not None and given.kind in parts


def _check_order(function: Function, parameters: list[Parameter], shape: Shape) -> None:
    """Refuse `f(message, client)`, which has the right number of parameters."""
    names = [parameter.name for parameter in parameters]
    for position, given in enumerate(shape.given):
        if given.name not in names or names.index(given.name) == position:
            continue
        stray = names.index(given.name)
        annotation = _known(function, parameters[stray].annotation)
        if stray < len(shape.given) and annotation in (_UNKNOWN, given.kind):
            found = f"has {given.name!r} as its {_ordinal(stray)} parameter, which gets the "
            found += shape.given[stray].name
            raise _wrong(shape, name_of(function), found)


def _check_types(function: Function, parameters: list[Parameter], shape: Shape) -> None:
    """Refuse a parameter whose annotation says another type than the hub passes."""
    for parameter, given in zip(parameters, shape.given, strict=False):
        if given.kind is None or parameter.kind is Parameter.VAR_POSITIONAL:
            continue
        if not _can_be(_known(function, parameter.annotation), given.kind):
            found = (
                f"says that its parameter {parameter.name!r} is "
                f"{_written(parameter.annotation)}, and what comes is {given.kind.__name__}"
            )
            raise _wrong(shape, name_of(function), found)


def _can_be(annotation: Any, kind: type) -> bool:
    """Tell whether a value of the type `kind` fits an annotation; True where nobody can know."""
    annotation = unmarked(annotation)
    if is_union(annotation):
        return any(_can_be(part, kind) for part in get_args(annotation))
    if annotation in (_UNKNOWN, Any):
        return True
    if annotation is None:
        return False
    if annotation is float and kind is int:
        return True
    origin = get_origin(annotation) or annotation
    try:
        return not isinstance(origin, type) or issubclass(kind, origin)
    except TypeError:
        return True  # a Protocol that is not checkable at run time


# What is returned


def _check_return(function: Function, shape: Shape) -> None:
    target = _innermost(function)
    if not inspect.isfunction(target) or _is_wrapper(function):
        return
    written = _signature(target).return_annotation
    annotation = _known(function, written)
    if not _may_return(annotation, shape, is_async=inspect.iscoroutinefunction(target)):
        found = f"returns {_written(written)}: {shape.advice}"
        raise _wrong(shape, name_of(function), found)


def _may_return(annotation: Any, shape: Shape, *, is_async: bool) -> bool:
    """Tell whether what a function returns is read, or is nothing; True where nobody can know."""
    annotation = unmarked(annotation)
    if annotation in (None, Any, object, _UNKNOWN, types.NoneType):
        return True
    if is_union(annotation):
        return all(_may_return(part, shape, is_async=is_async) for part in get_args(annotation))
    if get_origin(annotation) is Literal:
        return all(
            value is False or isinstance(value, shape.returns) for value in get_args(annotation)
        )
    origin = get_origin(annotation) or annotation
    if not isinstance(origin, type):
        return True
    if issubclass(origin, Awaitable) and not is_async:
        inner = get_args(annotation)[-1:]
        return all(_may_return(part, shape, is_async=True) for part in inner)
    return issubclass(origin, shape.returns)


# Annotations


def _known(function: Function, annotation: Any) -> Any:
    """Return an annotation resolved, or `_UNKNOWN`."""
    try:
        return _resolved(function, annotation)
    except Exception:
        return _UNKNOWN


def _resolved(function: Function, annotation: Any) -> Any:
    """Evaluate one annotation where the function stands; the others may be a type checker's only."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return annotation
    target = inspect.unwrap(function)
    while isinstance(target, functools.partial):
        target = inspect.unwrap(target.func)
    if not inspect.isroutine(target):
        target = type(target).__call__
    namespace = _nonlocals(target) if inspect.isfunction(target) else {}

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    hints = typing.get_type_hints(
        holder, getattr(target, "__globals__", {}), namespace, include_extras=True
    )
    return hints["it"]


def _nonlocals(function: types.FunctionType) -> dict[str, Any]:
    """Return the variables around a function that it uses, and that have a value already."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is assigned after the function was registered
            found[name] = cell.cell_contents
    return found


# Texts


def _wrong(shape: Shape, name: str, found: str) -> TypeError:
    return TypeError(f"@hub.{shape.decorator}: {name} {found}. Expected: {_expected(shape)}")


def _expected(shape: Shape) -> str:
    """Write the shape down: `f(client: Client) or f(client: Client, close: Close)`."""
    forms = []
    for count in range(shape.least, len(shape.given) + 1):
        arguments = ", ".join(
            given.name if given.kind is None else f"{given.name}: {given.kind.__name__}"
            for given in shape.given[:count]
        )
        forms.append(f"f({arguments})")
    return " or ".join(forms) + (", def or async def" if shape.may_be_async else ", def")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _written(annotation: Any) -> str:
    """Return an annotation as somebody wrote it."""
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    if isinstance(annotation, str):
        return annotation
    return shown(annotation)


def _counted(count: int) -> str:
    words = {0: "no parameters", 1: "one parameter"}
    return words.get(count, f"{count} parameters")


def _ordinal(position: int) -> str:
    return ("first", "second", "third")[position]


CLIENT = Given("client", Client)
"""What most functions get first."""
