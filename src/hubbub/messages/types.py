"""Message types: what an annotation says of the messages that fit it, told before the first comes.

What must not live here: decoding (`decoders`), and where the annotation stands (`signature`).
Pure functions over types and their JSON schemas. A dialect and `signature` call them.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin

import msgspec

Schema = Mapping[str, Any]

_FOREIGN = "x-foreign"
_CONSTRAINING = {"msgspec", "pydantic", "annotated_types"}
"""Packages whose `Annotated` marks are checked in JSON, and nowhere else."""
_REWRITING = {"function-before", "function-plain", "function-wrap"}
"""How pydantic calls what may change a value before anything else looks at it."""


class NotAMessage(TypeError):
    """A type that no message can have. Its argument is the type, as one reads it."""

    def __str__(self) -> str:
        return (
            f"{self.args[0]} is no type that a message can have, which are str, bytes, dict, "
            "dataclasses, msgspec Structs, pydantic models, and what msgspec makes of JSON"
        )


def is_union(annotation: Any) -> bool:
    """Tell whether an annotation is a union, in either spelling."""
    return get_origin(annotation) in (types.UnionType, typing.Union)


def is_raw(annotation: Any) -> bool:
    """Tell whether messages of this type are text or binary as they come, and no JSON."""
    if is_union(annotation):
        return all(map(is_raw, get_args(annotation)))
    return annotation in (str, bytes, bytearray, memoryview)


def bare(annotation: Any) -> Any:
    """Return the type behind an alias or a `NewType`; of text and binary, without its wrapping.

    `str | None` and `Annotated[str, "…"]` are `str`: there is no message that is None. Where a type
    is read from JSON both mean something, and stay. Raises `TypeError` for constraints on text.
    """
    annotation = behind(annotation)
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        inner = bare(inner)
        if not is_raw(inner):
            return annotation
        _check_unconstrained(inner, marks)
        return inner
    if is_union(annotation):
        parts = [bare(part) for part in get_args(annotation) if part is not types.NoneType]
        if parts and all(map(is_raw, parts)):
            return functools.reduce(lambda one, other: one | other, parts)
    return annotation


def behind(annotation: Any) -> Any:
    """Return the type behind an alias (`type X = …`) or a `NewType`."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # `type X = …`, since Python 3.12
            annotation = annotation.__value__
        else:
            return annotation


def unmarked(annotation: Any) -> Any:
    """Return the type behind aliases and the marks of `Annotated`."""
    annotation = behind(annotation)
    is_marked = get_origin(annotation) is Annotated
    return unmarked(get_args(annotation)[0]) if is_marked else annotation


def is_pydantic(kind: Any) -> bool:
    """Tell whether a class is a model or a dataclass of pydantic, which has rules of its own.

    An ordinary dataclass that inherits from one of pydantic's is none.
    """
    if hasattr(kind, "model_validate_json"):
        return True
    return isinstance(kind, type) and "__pydantic_validator__" in vars(kind)


def _check_unconstrained(inner: Any, marks: list[Any]) -> None:
    for mark in marks:
        if type(mark).__module__.partition(".")[0] in _CONSTRAINING:
            raise TypeError(
                f"{mark!r} is a constraint of JSON, and {shown(inner)} is taken as it comes; "
                "check it in the handler, or put it into a field of a type"
            )


def schema_of(annotation: Any) -> Schema:
    """Return the JSON schema of an annotation; `{}`, which all fits, where nobody can tell it."""
    kind = unmarked(annotation)
    try:
        if is_pydantic(kind) and _may_rewrite(kind.__pydantic_core_schema__):
            return {}
        if hasattr(kind, "model_json_schema"):
            model: Schema = kind.model_json_schema()
            return model
        return msgspec.json.schema(annotation, schema_hook=lambda kind: {_FOREIGN: kind})
    except Exception:  # a default that is not JSON, a model whose parts are defined further down
        return {}


def _may_rewrite(core: Any) -> bool:
    """Tell whether a validator sees a message, or its type, before pydantic's schema applies."""
    if isinstance(core, (list, tuple)):
        return any(map(_may_rewrite, core))
    if not isinstance(core, Mapping):
        return False
    if core.get("type") in _REWRITING:
        return True
    choices = core.get("choices", ())  # of a union; with a discriminator by its values
    choices = list(choices.values()) if isinstance(choices, Mapping) else choices
    return _may_rewrite([core.get("schema"), choices, core.get("definitions"), _type_field(core)])


def _type_field(core: Mapping[str, Any]) -> Any:
    """Return the schema of the field that a message's type goes into; None where there is none."""
    fields = core.get("fields", ())
    if not isinstance(fields, Mapping):  # a dataclass has a list of them, and one of their names
        fields = {field["name"]: field for field in fields if isinstance(field, Mapping)}
    found = (f for name, f in fields.items() if f.get("validation_alias", name) == "type")
    return next(found, None)


def foreign_in(schema: Schema) -> Any:
    """Return a class that every message would need an object of, and no JSON can be; else None."""
    return _foreign(schema, _resolver(schema), frozenset())


def _foreign(schema: Schema, resolve: Callable[[Schema], Schema], seen: frozenset[str]) -> Any:
    if _FOREIGN in schema:
        return schema[_FOREIGN]
    reference = schema.get("$ref")
    if reference in seen:
        return None
    if reference is not None:
        seen |= {reference}
    schema = resolve(schema)
    properties = schema.get("properties", {})
    parts = [properties[name] for name in schema.get("required", ()) if name in properties]
    parts += schema.get("anyOf", ())
    parts += schema.get("prefixItems", ())
    parts += [
        schema[key]
        for key in ("items", "additionalProperties")
        if isinstance(schema.get(key), Mapping)
    ]
    found = (_foreign(part, resolve, seen) for part in parts)
    return next((kind for kind in found if kind is not None), None)


def types_in(schema: Schema) -> set[str] | None:
    """Return which `type` a JSON object may have to fit a schema; None: any, empty: no object fits."""
    return _types(schema, _resolver(schema))


def _types(schema: Schema, resolve: Callable[[Schema], Schema]) -> set[str] | None:
    schema = resolve(schema)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _joined(_types(part, resolve) for part in schema[key])
    kind = schema.get("type")
    if kind is None:
        return set() if "enum" in schema or "const" in schema else None
    if kind != "object":
        return set()
    properties = schema.get("properties", {})
    if "type" in properties:
        return _strings(properties["type"], resolve)
    others = schema.get("additionalProperties", True)
    if isinstance(others, Mapping):
        return _strings(others, resolve)
    return None if others else set()


def _strings(schema: Schema, resolve: Callable[[Schema], Schema]) -> set[str] | None:
    """Return which strings fit a schema; None: any."""
    schema = resolve(schema)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _joined(_strings(part, resolve) for part in schema[key])
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return {value for value in values if isinstance(value, str)}
    return None if schema.get("type", "string") == "string" else set()


def _joined(sets: typing.Iterable[set[str] | None]) -> set[str] | None:
    joined: set[str] = set()
    for one in sets:
        if one is None:
            return None
        joined |= one
    return joined


def _resolver(root: Schema) -> Callable[[Schema], Schema]:
    definitions = root.get("$defs", {})

    def resolve(schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        return schema

    return resolve


def check_type(annotation: Any, kind: str) -> None:
    """Raise `TypeError` if no JSON object whose `type` is `kind` fits an annotation."""
    allowed = types_in(schema_of(annotation))
    if allowed is not None and kind not in allowed:
        if not allowed:
            raise TypeError(f"no JSON object with the type {kind!r} fits {shown(annotation)}")
        names = " or ".join(map(repr, sorted(allowed)))
        raise TypeError(f"{shown(annotation)} is for messages of the type {names}, not {kind!r}")
    config = getattr(annotation, "__struct_config__", None)
    tag_field, tag = getattr(config, "tag_field", None), getattr(config, "tag", None)
    # With another tag such a Struct may be one shape of a message whose type is something else.
    if tag_field not in (None, "type") and str(tag).casefold() == kind.casefold():
        raise TypeError(
            f"{shown(annotation)} has its tag in the field {tag_field!r}, and a message finds its "
            "handler by 'type'; leave tag_field away"
        )


def check_readable(annotation: Any) -> None:
    """Raise `TypeError` for an annotation that no message can ever fit, or not by its own rules."""
    kind = unmarked(annotation)
    if is_pydantic(kind):
        return
    foreign = next(filter(is_pydantic, _parts(kind)), None) or foreign_in(schema_of(annotation))
    if foreign is None:
        return
    if is_pydantic(foreign):
        raise TypeError(
            f"the pydantic model {shown(foreign)} stands inside another type; for a union or a list "
            "of models take a pydantic RootModel of it"
        )
    within = "" if foreign is annotation else f" (within {shown(annotation)})"
    raise NotAMessage(shown(foreign) + within)


def _parts(annotation: Any) -> typing.Iterator[Any]:
    """Yield the types that an annotation is written with, those of its fields left out."""
    annotation = unmarked(annotation)
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _parts(part)


def shown(annotation: Any) -> str:
    """Return a type as one writes it, a class by its name alone."""
    if is_union(annotation):
        return " | ".join(map(shown, get_args(annotation)))
    if annotation is types.NoneType:
        return "None"
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation)
    )
