"""The server under test counts what a leak would leave behind: types that there are."""

from __future__ import annotations

import asyncio
import pkgutil
from importlib import import_module

import pytest

import hubbub
from stress.server import COUNTED


def everything_named(name: str) -> list[object]:
    """Return what the modules of hubbub, and asyncio, know under `name`."""
    found = pkgutil.walk_packages(hubbub.__path__, "hubbub.")
    others = ("hubbub.__main__", "hubbub.frame")  # a program, and an old place that warns
    modules = [import_module(info.name) for info in found if info.name not in others]
    return [getattr(module, name) for module in [*modules, asyncio] if hasattr(module, name)]


@pytest.mark.parametrize("name", COUNTED)
def test_a_type_that_is_counted_exists(name: str) -> None:
    """A type that has another name by now would be counted as none, for ever."""
    assert any(isinstance(thing, type) for thing in everything_named(name))
