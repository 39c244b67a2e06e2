"""The names of dialects, and what can be one."""

from __future__ import annotations

import pytest

from array_dialect import ArrayDialect
from hubbub import Hub
from hubbub.dialects.names import DIALECTS, dialect_of
from hubbub.dialects.plain import PLAIN
from serving import nothing


def test_each_has_the_name_by_which_it_is_known() -> None:
    assert {name: dialect.name for name, dialect in DIALECTS.items()} == {n: n for n in DIALECTS}
    assert dialect_of("plain") is PLAIN
    mine = ArrayDialect()
    assert dialect_of(mine) is mine


def test_a_wrong_one_is_an_error_when_the_route_is_made() -> None:
    hub = Hub()
    for make in (hub.routes, hub.router, lambda **words: hub.mount(nothing, **words)):
        with pytest.raises(ValueError, match="there is no dialect 'morse', only centrifuge, plain"):
            make(dialect="morse")
        with pytest.raises(TypeError, match="dialect must be a name, or an object with name"):
            make(dialect=ArrayDialect)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="dialect must be a name"):
            make(dialect=None)  # type: ignore[arg-type]
