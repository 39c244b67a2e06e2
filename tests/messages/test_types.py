"""Message types: which types and which `type` a message may have, told from an annotation."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NewType

import msgspec
import pydantic
import pytest

from hubbub.messages.types import (
    NotAMessage,
    bare,
    behind,
    check_readable,
    check_type,
    foreign_in,
    is_raw,
    schema_of,
    shown,
    types_in,
)

Words = NewType("Words", str)


class Say(msgspec.Struct, tag="say"):
    text: str


class Move(msgspec.Struct, tag="move"):
    x: int


class Plain(msgspec.Struct):
    x: int


class Thing:
    """Nothing that JSON can be."""


class Needs(msgspec.Struct):
    thing: Thing


class May(msgspec.Struct):
    x: int
    thing: Thing | None = None


class Tree(msgspec.Struct):
    left: Tree | None = None
    leaves: list[Tree] = []


class Linked(msgspec.Struct):
    next: list[Linked]
    thing: Thing


class Some(pydantic.BaseModel):
    type: Literal["some"]


class Other(pydantic.BaseModel):
    type: Literal["other", "another"]


class Either(pydantic.RootModel[Annotated[Some | Other, pydantic.Field(discriminator="type")]]): ...


class Holds(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    thing: Thing


class Hidden(msgspec.Struct, forbid_unknown_fields=True):
    type: str = ""


class Unencodable(msgspec.Struct):
    x: int
    fields: dict[str, Any] = msgspec.field(default_factory=dict)


@pytest.mark.parametrize(
    ("annotation", "types"),
    [
        (Say, {"say"}),
        (Say | Move, {"say", "move"}),
        (Say | list[int], {"say"}),
        (Say | None, {"say"}),
        (Plain, None),
        (Say | dict[str, Any], None),
        (Any, None),
        (dict, None),
        (dict[str, str], None),
        (dict[str, int | str], None),
        (dict[str, Literal["a", "b", 1]], {"a", "b"}),
        (dict[str, int], set()),
        (list[str], set()),
        (int, set()),
        (Literal["say"], set()),
        (Some, {"some"}),
        (Other, {"other", "another"}),
        (Either, {"some", "other", "another"}),
        (Holds, None),
        (Hidden, None),
        (Tree, None),
        (msgspec.Raw, None),
        (Unencodable, None),
    ],
)
def test_which_type_a_message_may_have(annotation: Any, types: set[str] | None) -> None:
    schema = schema_of(annotation)
    if annotation is dict:
        assert schema["type"] == "object"
    assert types_in(schema) == types
    for kind in types or {"anything"}:
        if types != set():
            check_type(annotation, kind)
    if types is not None:
        with pytest.raises(TypeError, match=r"no JSON object with|is for messages of the type"):
            check_type(annotation, "no such type")


@pytest.mark.parametrize(
    ("annotation", "foreign"),
    [
        (Thing, Thing),
        (list[Thing], Thing),
        (tuple[int, Thing], Thing),
        (dict[str, Thing], Thing),
        (Needs, Thing),
        (Linked, Thing),
        (May, None),
        (Tree, None),
        (Say | Move, None),
        (Holds, None),
    ],
)
def test_what_no_json_can_be_is_found_where_every_message_needs_it(
    annotation: Any, foreign: type | None
) -> None:
    assert foreign_in(schema_of(annotation)) is foreign
    if foreign is None:
        check_readable(annotation)
    else:
        with pytest.raises(NotAMessage, match="Thing"):
            check_readable(annotation)


@pytest.mark.parametrize(
    ("annotation", "stands_for"),
    [
        (str, str),
        (Words, str),
        (str | None, str),
        (Words | None, str),
        (bytes | str | None, str | bytes),
        (Annotated[str, "words"], str),
        (Annotated[Words, "words"] | None, str),
        (Say | None, Say | None),
        (int | None, int | None),
        (Annotated[int, msgspec.Meta(gt=0)], Annotated[int, msgspec.Meta(gt=0)]),
        (None, None),
    ],
)
def test_what_is_behind_an_annotation(annotation: Any, stands_for: Any) -> None:
    assert bare(annotation) == stands_for


@pytest.mark.parametrize(
    "mark", [msgspec.Meta(max_length=5), pydantic.Field(max_length=5)], ids=["msgspec", "pydantic"]
)
def test_constraints_of_what_is_no_json_are_refused(mark: Any) -> None:
    with pytest.raises(TypeError, match="is a constraint of JSON, and str is taken as it comes"):
        bare(Annotated[str, mark])


def test_a_new_type_of_a_new_type_is_what_they_are() -> None:
    assert behind(NewType("Loud", Words)) is str


@pytest.mark.parametrize("stands_for", [str, Say])
def test_an_alias_is_what_it_stands_for(stands_for: type) -> None:
    """`type Words = str` can be written since Python 3.12; this is the same in all of ours."""

    class TypeAliasType:
        __value__ = stands_for

    assert behind(TypeAliasType()) is bare(TypeAliasType()) is stands_for


def test_raw_is_text_and_binary() -> None:
    assert all(map(is_raw, (str, bytes, bytearray, memoryview, str | bytes)))
    assert not any(map(is_raw, (int, str | int, None, Say, Any)))


def test_a_type_is_shown_as_one_writes_it() -> None:
    assert shown(Say) == "Say"
    assert shown(Say | Move | None) == "Say | Move | None"
    assert shown(list[int]) == "list[int]"
    assert shown("Say") == "Say"
