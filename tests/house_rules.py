"""The rules of the house: each returns what breaks it, a line for each fault.

What must not live here: what is excepted from them today (tests/house/test_house.py), and how the
house is read (tools/house.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from house import PACKAGE, Arrow, House, Import, Module

Exceptions = Collection[tuple[str, str]]
"""Arrows that are known and not yet mended: from which room to which."""

STANDARD_LIBRARY = sys.stdlib_module_names | {"annotationlib"}
"""Of this Python, and what newer ones add."""
FOR_TYPES = {"typing_extensions"}
"""What every type checker knows, though it may not be installed."""
IMPURE = {"asyncio", "selectors", "socket", "threading", "time"}
COMES_WITH = {
    "httptools": "uvicorn",
    "uvloop": "uvicorn",
    "websockets": "uvicorn",
    "starlette": "fastapi",
}
"""Packages that are one foreign interface with another. uvicorn's classes stand on the core of
websockets, as ours do."""

GONE = """
bench_books bench_dial bench_pacer bench_process bench_result bench_rows bench_socket bench_wire
broker_memory cli_app cli_bench cli_check cli_connect cli_handshake cli_input cli_reload cli_screen
cli_serve connect_options connect_rules dialect_plain expiry fanout_deflate heartbeat http_uvicorn
inbound message_types protocol_uvicorn quietlog route_fastapi route_starlette ticker
transport_asgi transport_deflate transport_uvicorn uvicorn_deflate warden watch
"""
"""Names that modules had once, and none has now."""

OWED_WORDS = ("It owns", "It must not know")
"""How the docstring of a room says what it says."""


def rooms(house: House) -> list[str]:
    """The drawing and the tree have the same rooms, and each folder is a package."""
    there = {module.room for module in house.modules.values()}
    found = [f"{room} is not in the drawing" for room in sorted(there - set(house.rooms))]
    found += [
        f"{room} is drawn, and there is no such room" for room in sorted(set(house.rooms) - there)
    ]
    for room in house.rooms:
        if house.folder(room) and f"{room}.__init__" not in house.modules:
            found.append(f"{room} has no __init__.py")
        if house.folder(room) and room in house.modules:
            found.append(f"{room} is a module and a folder")
    return found


def names(house: House) -> list[str]:
    """What the rooms' words in brackets name is there."""
    found = []
    for room in house.rooms.values():
        inner = {module.inner for module in house.of(room.name)}
        known = {"pure": inner, "only": {*house.plan.levels, *house.rooms}, "lazily": house.rooms}
        if house.is_moving:
            del known["pure"]  # names may be ahead of the modules, or behind them
        for tag, there in known.items():
            for name in sorted(room.tags.get(tag, frozenset()) - set(there)):
                found.append(f"{room.name} is drawn with [{tag}: {name}], which is not there")
    return found


def waiting(house: House) -> list[str]:
    """Once nothing waits at the top, the drawing says of nothing that it does."""
    if house.is_moving:
        return []
    return [
        f"{room.name} is drawn with modules that have moved"
        for room in house.rooms.values()
        if room.waiting
    ]


def arrows(house: House, owed: Exceptions = ()) -> list[str]:
    """No import goes up, but the sanctioned one; what lies apart is apart; `only` means only."""
    return [
        f"{arrow.module.name}:{arrow.found.line} imports {arrow.to}, {why}"
        for arrow in house.arrows()
        if (why := _wrong(house, arrow)) and (arrow.module.room, arrow.to) not in owed
    ]


def _wrong(house: House, arrow: Arrow) -> str:
    """Say why a room may not be imported where it is; nothing if it may."""
    start, plan = house.rooms.get(arrow.module.room), house.plan
    if start is None or house.is_sanctioned(arrow):
        return ""
    is_program = "program" in start.tags
    if arrow.to == PACKAGE:
        return "" if is_program else "whose names may be those of any room"
    if plan.height(arrow.to) > plan.height(start.name):
        return "which is above it"
    if start.level in plan.apart and plan.height(arrow.to) == plan.height(start.name):
        return "which it must not know"
    allowed = plan.named(start.tags["only"]) if "only" in start.tags else {arrow.to}
    return "" if arrow.to in allowed else "which is none of those that it may"


def circles_between_rooms(house: House, owed: Exceptions = ()) -> list[str]:
    """Nothing goes round between rooms, for type checkers neither."""
    ways: dict[str, set[str]] = {module.room: set() for module in house.modules.values()}
    for arrow in house.arrows():
        is_owed = (arrow.module.room, arrow.to) in owed
        if arrow.to in ways and not is_owed and not house.is_sanctioned(arrow):
            ways[arrow.module.room].add(arrow.to)
    return [f"these rooms import one another: {', '.join(circle)}" for circle in circles(ways)]


def circles_inside_rooms(house: House) -> list[str]:
    """Inside a room no circle forms when its modules are loaded."""
    found = []
    for room in house.rooms:
        modules = {module.name: module for module in house.of(room)}
        ways = {
            name: {house.module_of(each.target) for each in module.imports if _is_loaded(each)}
            for name, module in modules.items()
        }
        for circle in circles({name: ends & set(ways) - {name} for name, ends in ways.items()}):
            found.append(f"these modules import one another: {', '.join(circle)}")
    return found


def _is_loaded(found: Import) -> bool:
    return found.is_ours and not found.for_types_only


def circles(ways: Mapping[str, set[str]]) -> list[list[str]]:
    """Return what is left when all is gone that does not import, or is not imported, any more."""
    left = {start: set(ends) for start, ends in ways.items()}
    while gone := _loose(left):
        left = {start: ends - gone for start, ends in left.items() if start not in gone}
    return [sorted(left)] if left else []


def _loose(ways: Mapping[str, set[str]]) -> set[str]:
    imported = {end for ends in ways.values() for end in ends}
    return {start for start, ends in ways.items() if not ends or start not in imported}


def foreign(house: House) -> list[str]:
    """Below the edges only the standard library is imported, and what the drawing names."""
    found = []
    for module in house.modules.values():
        room = house.rooms.get(module.room)
        if room is None or {"edge", "program"} & set(room.tags):
            continue
        for each in _foreign(module):
            is_door = module.inner == room.name and "lazily" in room.tags
            if each.target in room.tags or (is_door and each.for_types_only):
                continue
            found.append(f"{module.name}:{each.line} imports {each.target}")
    return found


def one_interface(house: House) -> list[str]:
    """In a room at the edge a file has one foreign interface."""
    found = []
    for module in house.modules.values():
        room = house.rooms.get(module.room)
        if room is not None and "edge" in room.tags:
            packages = {each.target for each in _foreign(module)} - set(room.tags)
            interfaces = {COMES_WITH.get(package, package) for package in packages}
            if len(interfaces) > 1:
                found.append(f"{module.name} has several: {', '.join(sorted(interfaces))}")
    return found


def _foreign(module: Module) -> Iterator[Import]:
    for found in module.imports:
        is_for_types = found.for_types_only and found.target in FOR_TYPES
        if not found.is_ours and found.target not in STANDARD_LIBRARY and not is_for_types:
            yield found


def pure(house: House) -> list[str]:
    """What is drawn as pure knows no event loop, no threads, no sockets and no clock."""
    found = []
    for module in house.modules.values():
        room = house.rooms.get(module.room)
        if room is None or "pure" not in room.tags:
            continue
        only = room.tags["pure"]
        for each in module.imports:
            if each.target in IMPURE and not each.is_ours and (not only or module.inner in only):
                found.append(f"{module.name}:{each.line} imports {each.target}")
    return found


def relative(house: House) -> list[str]:
    """What is ours is imported relatively."""
    return [
        f"{module.name}:{found.line} imports {house.source.name}.{found.target}"
        for module in house.modules.values()
        for found in module.imports
        if found.is_ours and found.is_absolute
    ]


def docstrings(house: House, not_yet: Collection[str] = ()) -> list[str]:
    """A module says what it is; a room says what it owns and what it must not know.

    Excepted are the rooms of `not_yet`, until they say it.
    """
    found = []
    for module in house.modules.values():
        is_empty = module.path.name == "__init__.py" and not module.path.read_text("utf-8").strip()
        if not module.doc and not (is_empty and module.inner != "__init__"):
            found.append(f"{module.name} has no docstring")
    for room in house.rooms:
        init = house.modules.get(f"{room}.__init__")
        text = " ".join(init.doc.split()) if init else ""
        owed = [f"{room} does not say: {words}" for words in OWED_WORDS if f"{words} " not in text]
        if text and room in not_yet and not owed:
            found.append(f"{room} says it, and need not be excepted")
        elif text and room not in not_yet:
            found += owed
    return found


def named_modules(house: House) -> list[str]:
    """The docstring of a module names no module that is not there.

    What counts as one: `hub.room` and what begins so (`hub.room.Room`), with `hubbub.` before it or
    not, for each room that is a folder; and the single names that are `GONE`.
    """
    gone = {*GONE.split()} - {module.name.rpartition(".")[2] for module in house.modules.values()}
    found = []
    for module in house.modules.values():
        for name in re.findall(r"`(?:hubbub\.)?([a-z_]\w*(?:\.\w+)?)[\w.:]*`", module.doc):
            is_gone = name in gone
            if house.folder(name.partition(".")[0]) and "." in name:
                is_gone = house.module_of(name) not in house.modules
            if is_gone:
                found.append(f"{module.name} names {name}, which is no module")
    return found


def mirror(
    house: House,
    tests: Path,
    no_tests: Collection[str] = (),
    no_module: Collection[str] = (),
    not_yet: Collection[str] = (),
) -> list[str]:
    """Every module has its test file, in the same place among the tests, and the reverse.

    Tests of several subjects may have a file each: `hub/test_room_policies.py` counts for `hub.room`.
    Excepted are the modules (`hub.room`, or a whole room) of `no_tests`, the test files
    (`hub/test_all.py`) of `no_module`, and the rooms of `not_yet`, whose tests have not moved.
    """
    owed, found = set(), []
    for module in house.modules.values():
        excepted = {module.name, module.name.partition(".")[0]} & {*no_tests, *not_yet}
        if not module.name.endswith("__init__") and not excepted:
            *folders, name = module.name.split(".")
            owed.add("/".join([*folders, f"test_{name}.py"]))
    folders = [
        room for room in house.rooms if house.folder(room) and room not in {*no_tests, *not_yet}
    ]
    given = {path.name for path in tests.glob("test_*.py")}
    given |= {
        path.relative_to(tests).as_posix()
        for folder in folders
        for path in (tests / folder).rglob("test_*.py")
    }
    lone = {path for path in given if _tested_by(path, owed) is None}
    found += [
        f"there is no {path}" for path in sorted(owed - {_tested_by(path, owed) for path in given})
    ]
    found += [f"{path} has no module" for path in sorted(lone - set(no_module))]
    found += [f"{path} is excepted in vain" for path in sorted(set(no_module) - lone)]
    for name in sorted({*no_tests} - {module.name for module in house.modules.values()}):
        if not house.folder(name):
            found.append(f"{name} is excepted, and there is no such module")
    found += [f"{room} waits for its tests in vain" for room in not_yet if (tests / room).is_dir()]
    return found


def _tested_by(path: str, owed: Collection[str]) -> str | None:
    """Return the test file that `path` is, or is a subject of; None if no module is meant."""
    meant = [file for file in owed if path == file or path.startswith(file[: -len(".py")] + "_")]
    return max(meant, key=len, default=None)
