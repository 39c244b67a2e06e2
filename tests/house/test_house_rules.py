"""The rules of the house find what breaks them: each is given small trees with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import house_rules
from house import House, drawing

PLAN = """
```house
words       what everybody names                     [pure]
  errors      what goes wrong
  model       the nouns
parts       what a hub is put together from          [apart]
  transports  how bytes reach one client             [edge]
  dialects    what bytes mean                        [pure] [msgspec]
hub         one event loop
  hub         who is connected
    [lazily: asgi] [pure: outbox]
    (client)
asgi        HTTP
  asgi        routes                                 [edge]
programs    what people start                        [program]
  testing     a client in memory
  connection  the client program                     [only: words]
```
"""

ROOM = '"""A room.\n\nIt owns what it has. It must not know the rest.\n"""\n'
MODULE = '"""A module."""\n'

SOUND = {
    "__init__.py": MODULE,
    "errors.py": MODULE,
    "model.py": MODULE + "from . import errors\n",
    "transports/__init__.py": ROOM,
    "transports/uvicorn.py": MODULE + "import uvicorn, httptools\nfrom websockets import frames\n",
    "dialects/__init__.py": ROOM,
    "dialects/plain.py": MODULE + "import msgspec\nfrom ..errors import HubbubError\n",
    "hub/__init__.py": ROOM,
    "hub/hub.py": MODULE
    + "from ..dialects.plain import Plain\ndef f():\n    from ..asgi import api\n",
    "hub/outbox.py": MODULE,
    "client.py": MODULE + "import asyncio\nfrom .hub import outbox\n",
    "asgi/__init__.py": ROOM,
    "asgi/api.py": MODULE + "import starlette, fastapi\nfrom ..hub.hub import Hub\n",
    "testing.py": MODULE + "import pytest\nfrom . import Hub\n",
    "connection/__init__.py": ROOM,
    "connection/connection.py": MODULE + "from ..model import Close\n",
}
"""A tree without a fault, by the names of its files."""

TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "

Build = Callable[[Mapping[str, str]], House]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Give a function that writes the sound tree with some files changed, and reads it."""

    def build_house(changes: Mapping[str, str]) -> House:
        source = tmp_path / "hubbub"
        for name, text in {**SOUND, **changes}.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return House(source, drawing(PLAN))

    return build_house


RULES = {
    rule.__name__: rule
    for rule in (
        house_rules.rooms,
        house_rules.names,
        house_rules.waiting,
        house_rules.arrows,
        house_rules.circles_between_rooms,
        house_rules.circles_inside_rooms,
        house_rules.foreign,
        house_rules.one_interface,
        house_rules.pure,
        house_rules.relative,
        house_rules.docstrings,
        house_rules.named_modules,
    )
}


def test_a_sound_tree_breaks_no_rule(build: Build) -> None:
    house = build({})
    assert {name: rule(house) for name, rule in RULES.items()} == {name: [] for name in RULES}


BROKEN = {
    # up
    "up": ("arrows", {"errors.py": MODULE + "from .hub.hub import Hub\n"}, "errors:2 imports hub"),
    "up in a function": (
        "arrows",
        {"hub/outbox.py": MODULE + "def f():\n    from ..asgi import api\n"},
        "hub.outbox:3 imports asgi, which is above it",
    ),
    "up for types": (
        "arrows",
        {"transports/asgi.py": MODULE + TYPES + "from ..hub import Hub\n"},
        "transports.asgi:4 imports hub, which is above it",
    ),
    "up from the door, when it is loaded": (
        "arrows",
        {"hub/hub.py": MODULE + "from ..asgi.api import routes\n"},
        "hub.hub:2 imports asgi, which is above it",
    ),
    "up from the door, to another room": (
        "arrows",
        {"hub/hub.py": MODULE + "def f():\n    from .. import testing\n"},
        "hub.hub:3 imports testing, which is above it",
    ),
    "up from a module that waits": (
        "arrows",
        {"client.py": MODULE + "from .asgi import api\n"},
        "client:2 imports asgi, which is above it",
    ),
    "up to a module that waits": (
        "arrows",
        {"model.py": MODULE + "from . import client\n"},
        "model:2 imports hub, which is above it",
    ),
    "up to what is not drawn": (
        "arrows",
        {"hub/outbox.py": MODULE + "from .. import nowhere\n", "nowhere.py": MODULE},
        "hub.outbox:2 imports nowhere, which is above it",
    ),
    "up by an absolute name": (
        "arrows",
        {"model.py": MODULE + "import hubbub.asgi.api\n"},
        "model:2 imports asgi, which is above it",
    ),
    "by the name of the package": (
        "arrows",
        {"hub/outbox.py": MODULE + "from .. import Hub\n"},
        "hub.outbox:2 imports the package itself, whose names may be those of any room",
    ),
    "apart": (
        "arrows",
        {"dialects/plain.py": MODULE + "from ..transports.uvicorn import Protocol\n"},
        "dialects.plain:2 imports transports, which it must not know",
    ),
    "only": (
        "arrows",
        {"connection/connection.py": MODULE + "from ..hub.outbox import Outbox\n"},
        "connection.connection:2 imports hub, which is none of those that it may",
    ),
    # round
    "round between words": (
        "circles_between_rooms",
        {"errors.py": MODULE + "from .model import Close\n"},
        "these rooms import one another: errors, model",
    ),
    "round between rooms, for types": (
        "circles_between_rooms",
        {"errors.py": MODULE + TYPES + "from .model import Close\n"},
        "these rooms import one another: errors, model",
    ),
    "round inside a room": (
        "circles_inside_rooms",
        {
            "hub/hub.py": MODULE + "from .outbox import Outbox\n",
            "hub/outbox.py": MODULE + "def f():\n    from . import hub\n",
        },
        "these modules import one another: hub.hub, hub.outbox",
    ),
    "round by way of a module that waits": (
        "circles_inside_rooms",
        {"hub/outbox.py": MODULE + "from ..client import Client\n"},
        "these modules import one another: client, hub.outbox",
    ),
    # foreign
    "foreign": (
        "foreign",
        {"hub/outbox.py": MODULE + "import msgspec\n"},
        "hub.outbox:2 imports msgspec",
    ),
    "foreign for types": (
        "foreign",
        {"hub/outbox.py": MODULE + TYPES + "from fastapi import APIRouter\n"},
        "hub.outbox:4 imports fastapi",
    ),
    "foreign in the door": (
        "foreign",
        {"hub/hub.py": MODULE + "from starlette.routing import Route\n"},
        "hub.hub:2 imports starlette",
    ),
    "two interfaces": (
        "one_interface",
        {"transports/uvicorn.py": MODULE + "import uvicorn\nimport hypercorn.config\n"},
        "transports.uvicorn has several: hypercorn, uvicorn",
    ),
    # pure
    "clock": ("pure", {"errors.py": MODULE + "import time\n"}, "errors:2 imports time"),
    "loop": (
        "pure",
        {"dialects/plain.py": MODULE + "def f():\n    from asyncio import sleep\n"},
        "dialects.plain:3 imports asyncio",
    ),
    "a single module": (
        "pure",
        {"hub/outbox.py": MODULE + "import socket\n"},
        "hub.outbox:2 imports socket",
    ),
    # absolute
    "absolute": (
        "relative",
        {"hub/outbox.py": MODULE + "from hubbub.errors import Refused\n"},
        "hub.outbox:2 imports hubbub.errors",
    ),
    # said
    "no docstring": ("docstrings", {"hub/outbox.py": "import os\n"}, "hub.outbox has no docstring"),
    "no docstring of a room": (
        "docstrings",
        {"hub/__init__.py": ""},
        "hub.__init__ has no docstring",
    ),
    "a room without an owner": (
        "docstrings",
        {"hub/__init__.py": '"""A room. It must not know sockets."""\n'},
        "hub does not say: It owns",
    ),
    "a room that knows all": (
        "docstrings",
        {"hub/__init__.py": '"""A room. It owns clients."""\n'},
        "hub does not say: It must not know",
    ),
    # named
    "names no module of a room": (
        "named_modules",
        {"errors.py": '"""What `hub.inbound.Message` raises."""\n'},
        "errors names hub.inbound, which is no module",
    ),
    "names what is gone": (
        "named_modules",
        {"hub/outbox.py": '"""Not `warden`."""\n'},
        "hub.outbox names warden, which is no module",
    ),
    # drawn
    "not drawn": ("rooms", {"extra.py": MODULE}, "extra is not in the drawing"),
    "twice": ("rooms", {"testing/__init__.py": ROOM}, "testing is a module and a folder"),
}
"""For each fault: the rule, the files that have it, and the complaint."""


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_is_found(build: Build, fault: str) -> None:
    rule, changes, complaint = BROKEN[fault]
    found = RULES[rule](build(changes))
    assert len(found) == 1, found
    assert found[0].startswith(complaint)


ALLOWED = {
    "the door, for types": {
        "hub/hub.py": MODULE
        + TYPES
        + "from ..asgi.api import routes\n    from fastapi import APIRouter\n"
    },
    "round inside a room, for types": {
        "hub/hub.py": MODULE + "from .outbox import Outbox\n",
        "hub/outbox.py": MODULE + TYPES + "from .hub import Hub\n",
    },
    "a new module in a room": {"hub/room.py": MODULE + "from . import outbox\n"},
    "a module that has moved in": {"hub/client.py": MODULE},
    "an empty package inside a room": {"asgi/views/__init__.py": "", "asgi/views/page.py": MODULE},
    "names of modules, and of other things": {
        "errors.py": '"""See `hub.outbox.Outbox`, `hubbub.hub.hub`, `asgi.api`, `Hub.on`, `warden.x`, `hub`."""\n'
    },
    "a name that a module has again": {
        "hub/warden.py": MODULE,
        "errors.py": '"""See `warden`."""\n',
    },
    "types of tomorrow": {"errors.py": MODULE + TYPES + "from typing_extensions import TypeForm\n"},
    "a loop where not all is pure": {"hub/hub.py": MODULE + "import asyncio, time\n"},
    "one interface in each of two files": {
        "asgi/django.py": MODULE + "import django\n",
        "asgi/litestar.py": MODULE + "from litestar import Litestar\n",
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_is_not_found(build: Build, case: str) -> None:
    house = build(ALLOWED[case])
    assert [complaint for rule in RULES.values() for complaint in rule(house)] == []


def test_a_room_may_owe_its_sentences_for_a_while(build: Build) -> None:
    house = build({"hub/__init__.py": '"""A room. It owns clients."""\n'})
    assert house_rules.docstrings(house, {"hub", "later"}) == []
    assert house_rules.docstrings(house, {"hub", "asgi"}) == [
        "asgi says it, and need not be excepted"
    ]


def test_a_room_that_is_not_there_and_one_that_is_no_package(build: Build) -> None:
    house = build({})
    (house.source / "errors.py").unlink()
    (house.source / "asgi" / "__init__.py").unlink()
    assert house_rules.rooms(house) == [
        "errors is drawn, and there is no such room",
        "asgi has no __init__.py",
    ]


def test_what_the_drawing_names_must_be_there(build: Build) -> None:
    source = build({}).source
    (source / "hub" / "outbox.py").unlink()
    (source / "client.py").unlink()
    house = House(source, drawing(PLAN.replace("[only: words]", "[only: words, wire]")))
    assert house_rules.names(house) == [
        "hub is drawn with [pure: outbox], which is not there",
        "connection is drawn with [only: wire], which is not there",
    ]


def test_once_all_have_moved_nothing_is_drawn_as_waiting(build: Build) -> None:
    house = build({"hub/client.py": MODULE})
    (house.source / "client.py").unlink()
    assert house_rules.waiting(house) == ["hub is drawn with modules that have moved"]


def test_what_is_owed_is_passed_over_and_nothing_else(build: Build) -> None:
    house = build({"errors.py": MODULE + "from .model import Close\nfrom . import testing\n"})
    assert house_rules.arrows(house, {("errors", "testing")}) == []
    assert house_rules.arrows(house, {("errors", "hub")}) != []
    assert house_rules.circles_between_rooms(house, {("errors", "model")}) == []


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """The test files of the sound tree."""
    folder = tmp_path / "tests"
    names = [
        "errors",
        "model",
        "client",
        "testing",
        "transports/uvicorn",
        "dialects/plain",
        "hub/hub",
        "hub/outbox",
        "asgi/api",
        "connection/connection",
    ]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"test_{path.name}.py").touch()
    (folder / "helpers.py").touch()
    (folder / "house").mkdir()
    (folder / "house" / "test_house.py").touch()
    return folder


def test_the_tests_mirror_the_modules(build: Build, tests: Path) -> None:
    house = build({})
    assert house_rules.mirror(house, tests) == []
    (tests / "hub" / "test_outbox.py").rename(tests / "test_outbox.py")
    assert house_rules.mirror(house, tests) == [
        "there is no hub/test_outbox.py",
        "test_outbox.py has no module",
    ]
    assert house_rules.mirror(house, tests, {"hub.outbox"}, {"test_outbox.py"}) == []
    (tests / "hub" / "test_room.py").touch()
    (tests / "asgi" / "views").mkdir()
    (tests / "asgi" / "views" / "test_page.py").touch()
    assert house_rules.mirror(house, tests, {"hub.outbox"}, {"test_outbox.py"}) == [
        "asgi/views/test_page.py has no module",
        "hub/test_room.py has no module",
    ]


def test_a_module_may_have_a_test_file_for_each_subject(build: Build, tests: Path) -> None:
    house = build({})
    (tests / "hub" / "test_outbox.py").rename(tests / "hub" / "test_outbox_sizes.py")
    (tests / "hub" / "test_outbox_policies.py").touch()
    assert house_rules.mirror(house, tests) == []
    (tests / "hub" / "test_outboxes.py").touch()
    (tests / "test_outbox_order.py").touch()
    assert house_rules.mirror(house, tests) == [
        "hub/test_outboxes.py has no module",
        "test_outbox_order.py has no module",
    ]


def test_exceptions_from_the_mirror_end_with_their_reason(build: Build, tests: Path) -> None:
    house = build({})
    assert house_rules.mirror(
        house, tests, {"nowhere"}, {"test_model.py", "test_none.py"}, {"hub"}
    ) == [
        "test_model.py is excepted in vain",
        "test_none.py is excepted in vain",
        "nowhere is excepted, and there is no such module",
        "hub waits for its tests in vain",
    ]


def test_a_room_whose_tests_have_not_moved_may_wait(build: Build, tests: Path) -> None:
    house = build({})
    for path in (tests / "hub").iterdir():
        path.unlink()
    (tests / "hub").rmdir()
    (tests / "test_hub.py").touch()
    assert house_rules.mirror(house, tests, not_yet={"hub"}, no_module={"test_hub.py"}) == []
    assert house_rules.mirror(house, tests, {"hub"}, {"test_hub.py"}) == []
