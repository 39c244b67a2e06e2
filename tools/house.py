"""The house: its drawing in docs/design.md, its modules, and which of them imports which.

The drawing says in which room a module lives: a folder of src/hubbub, or a single module at the
top. `tests/house` proves that the code obeys it. What must not live here: the rules, which are tests.

    python tools/house.py files words hub      prints the files of rooms, joined by commas
    python tools/house.py picture              writes the picture into docs/architecture.md
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hubbub"
DESIGN = ROOT / "docs" / "design.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- The house, written by tools/house.py (`make docs`). Do not edit. -->"
END = "<!-- The end of what is written. -->"
PACKAGE = "the package itself"
"""The room of src/hubbub/__init__.py, which has the public names of all others."""


class Room(NamedTuple):
    """A room as it is drawn: its level, what is said of it, and what it may import."""

    name: str
    level: str
    text: str
    tags: Mapping[str, frozenset[str]]
    """What stands in brackets: `[pure: a, b]` is `pure` with the names a and b."""
    waiting: frozenset[str]
    """Modules at the top that have not moved into the room's folder yet."""


class Drawing(NamedTuple):
    """Levels from the lowest up, each with the names of its rooms, and all rooms by name."""

    levels: dict[str, list[str]]
    rooms: dict[str, Room]
    apart: set[str]
    """Levels whose rooms do not know one another."""

    def height(self, room: str) -> int:
        """Return how high a room or a level lies; what is in no drawing lies above everything."""
        level = self.rooms[room].level if room in self.rooms else room
        return [*self.levels, level].index(level)

    def named(self, names: frozenset[str]) -> set[str]:
        """Return the rooms that are meant by names of rooms or levels."""
        return {room for name in names for room in self.levels.get(name, [name])}


def drawing(page: str | None = None) -> Drawing:
    """Parse the fenced block ```house of the design (None: of docs/design.md).

    A line at the margin begins a level, a line below it is a room of that level. Names in
    parentheses, below a room, are modules that wait to move into it. What the words in brackets ask
    for is said in the design; those of a level hold for all its rooms.
    """
    text = DESIGN.read_text(encoding="utf-8") if page is None else page
    block = re.search(r"^```house\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError("docs/design.md has no block that begins with ```house")
    plan = Drawing({}, {}, set())
    level = ""
    tags: dict[str, frozenset[str]] = {}
    # What is indented further goes on with the line above.
    for entry in re.findall(r"^ {,3}\S.*\n(?: {4}.*\n)*", block[1], re.MULTILINE):
        line, _, rest = entry.partition("\n")
        name, _, said = line.strip().partition(" ")
        if line[0] != " ":
            level, tags = name, _tags(entry)
            plan.levels[level] = []
            if "apart" in tags:
                plan.apart.add(level)
        elif name in plan.rooms:
            raise ValueError(f"{name} is drawn twice")
        else:
            text = said.partition("[")[0].strip()
            waiting = re.findall(r"\w+", " ".join(re.findall(r"\(([^)]*)\)", rest)))
            plan.levels[level].append(name)
            plan.rooms[name] = Room(name, level, text, {**tags, **_tags(entry)}, frozenset(waiting))
    return plan


def _tags(line: str) -> dict[str, frozenset[str]]:
    found = [tag.partition(":") for tag in re.findall(r"\[([^\]]+)\]", line)]
    return {name.strip(): frozenset(re.findall(r"[\w.]+", names)) for name, _, names in found}


class Import(NamedTuple):
    """One import: of a module of ours (`hub.client`; "" is the package), or of a foreign package."""

    target: str
    is_ours: bool
    line: int
    for_types_only: bool
    in_a_function: bool
    is_absolute: bool


class Module(NamedTuple):
    """One file: its name in the package (`hub.client`, `errors`), its room, its imports."""

    name: str
    room: str
    path: Path
    doc: str
    imports: list[Import]

    @property
    def inner(self) -> str:
        """Its name in its room."""
        return self.name.removeprefix(f"{self.room}.")


class Arrow(NamedTuple):
    """That a module imports something of another room."""

    module: Module
    found: Import
    to: str


class House:
    """The modules of a package as they are drawn."""

    def __init__(self, source: Path = SOURCE, plan: Drawing | None = None) -> None:
        self.source = source
        self.plan = drawing() if plan is None else plan
        self._waiting = {name: room.name for room in self.rooms.values() for name in room.waiting}

    @property
    def rooms(self) -> Mapping[str, Room]:
        """The rooms as they are drawn, by name."""
        return self.plan.rooms

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The files of all modules by name; that of a folder's `__init__.py` ends with `__init__`."""
        found = sorted(self.source.rglob("*.py"))
        files = [path for path in found if path != self.source / "__init__.py"]
        return {
            ".".join(path.relative_to(self.source).with_suffix("").parts): path for path in files
        }

    @cached_property
    def modules(self) -> dict[str, Module]:
        """All modules by name, read and parsed."""
        return {name: self._module(name, path) for name, path in self.paths.items()}

    @cached_property
    def at_the_top(self) -> set[str]:
        """The names of modules and folders that lie in the package itself."""
        return {name.partition(".")[0] for name in self.modules}

    @cached_property
    def is_moving(self) -> bool:
        """Whether a module still waits to move into its room."""
        return bool(self.at_the_top & set(self._waiting))

    def of(self, room: str) -> list[Module]:
        """Return the modules of a room."""
        return [module for module in self.modules.values() if module.room == room]

    def folder(self, room: str) -> Path | None:
        """Return the folder of a room, if it has one."""
        return self.source / room if (self.source / room).is_dir() else None

    def arrows(self) -> Iterator[Arrow]:
        """Yield every import of another room."""
        for module in self.modules.values():
            for found in module.imports:
                if found.is_ours and (to := self.room_of(found.target)) != module.room:
                    yield Arrow(module, found, to)

    def is_sanctioned(self, arrow: Arrow) -> bool:
        """Whether an arrow goes up with permission.

        The module that has the room's name may import the rooms that the drawing names as lazy, in a
        function or for a type checker.
        """
        room = self.rooms.get(arrow.module.room)
        return (
            room is not None
            and arrow.module.inner == room.name
            and arrow.to in room.tags.get("lazily", ())
            and (arrow.found.in_a_function or arrow.found.for_types_only)
        )

    def room_of(self, target: str) -> str:
        """Return the room of something of ours that is imported."""
        top = target.partition(".")[0]
        return self._waiting.get(top, top) if top else PACKAGE

    def module_of(self, target: str) -> str:
        """Return the name of the module that is imported; of a folder its `__init__`."""
        return target if target in self.modules else f"{target}.__init__"

    def _module(self, name: str, path: Path) -> Module:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        doc = ast.get_docstring(tree) or ""
        return Module(name, self.room_of(name), path, doc, list(self._imports(tree, path)))

    def _imports(self, tree: ast.Module, path: Path) -> Iterator[Import]:
        package = list(path.relative_to(self.source).parts[:-1])
        for node, for_types, in_a_function in _import_statements(tree):
            places = (for_types, in_a_function)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield self._absolute(alias.name, [], node.lineno, *places)
            elif not node.level:
                names = [alias.name for alias in node.names]
                yield self._absolute(node.module or "", names, node.lineno, *places)
            else:
                base = package[: len(package) + 1 - node.level]
                for target in self._targets([*base, *(node.module or "").split(".")], node):
                    yield Import(target, True, node.lineno, *places, False)

    def _absolute(
        self, name: str, names: list[str], line: int, for_types: bool, in_a_function: bool
    ) -> Import:
        first, _, rest = name.partition(".")
        if first != self.source.name:
            return Import(first, False, line, for_types, in_a_function, True)
        return Import(rest or "".join(names[:1]), True, line, for_types, in_a_function, True)

    def _targets(self, parts: list[str], node: ast.ImportFrom) -> set[str]:
        """Return what a relative import is of: a module among the names, or where they are from."""
        base = [part for part in parts if part]
        found = set()
        for alias in node.names:
            path = self.source.joinpath(*base, alias.name)
            is_module = path.is_dir() or path.with_suffix(".py").exists()
            found.add(".".join([*base, alias.name] if is_module else base))
        return found


def _import_statements(
    tree: ast.AST, for_types: bool = False, in_a_function: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    """Yield all imports, and of each whether it is for a type checker only, and in a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, for_types, in_a_function
        elif isinstance(node, (ast.stmt, ast.excepthandler, ast.match_case)):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from _import_statements(
                node, for_types or _is_type_checking(node), in_a_function or is_function
            )


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def files(plan: Drawing, names: list[str]) -> list[str]:
    """Return patterns for the files of rooms and levels, as coverage takes them."""
    rooms = plan.named(frozenset(names))
    unknown = rooms - set(plan.rooms)
    if unknown:
        raise ValueError(f"no such room or level: {', '.join(sorted(unknown))}")
    found = []
    for name in sorted({*rooms, *(each for room in rooms for each in plan.rooms[room].waiting)}):
        if (SOURCE / name).is_dir():
            found.append(f"src/hubbub/{name}/*")
        elif (SOURCE / f"{name}.py").exists():
            found.append(f"src/hubbub/{name}.py")
    return found


def said(room: Room, house: House) -> tuple[str, str]:
    """Return what a room owns and what it must not know, from the docstring of its folder.

    Without a folder there is only what the drawing says.
    """
    module = house.modules.get(f"{room.name}.__init__") or house.modules.get(room.name)
    doc = " ".join(module.doc.split()) if module else ""
    owns = re.search(r"\bIt owns (.+?)[.:](?= |$)", doc)
    knows = re.search(r"\bIt must not know (.+?)[.:](?= |$)", doc)
    return (owns[1] if owns else room.text), (knows[1] if knows else "")


def drawn(house: House) -> dict[str, set[str]]:
    """Return the arrows of the picture: who imports whom, by the names of the picture's boxes."""
    boxes: dict[str, set[str]] = {}
    for room in house.rooms:
        if house.of(room) and room != "__main__":
            boxes.setdefault(_box(room, house.plan), set())
    for arrow in house.arrows():
        start, end = _box(arrow.module.room, house.plan), _box(arrow.to, house.plan)
        if start != end and start in boxes and end in boxes and not house.is_sanctioned(arrow):
            boxes[start].add(end)
    return boxes


def _box(room: str, plan: Drawing) -> str:
    """Return the box that a room is in: the lowest level is one, each room above it another."""
    lowest = next(iter(plan.levels))
    return lowest if room in plan.levels[lowest] else room


def reduced(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Leave out each arrow to where a longer way leads too."""
    left = {start: set(ends) for start, ends in arrows.items()}
    for start, ends in arrows.items():
        for end in sorted(ends):
            left[start].remove(end)
            if end not in _reached(start, left):
                left[start].add(end)
    return left


def _reached(start: str, arrows: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def picture(house: House) -> str:
    """Return the picture of the rooms and the table of what each is for, in Markdown."""
    lowest = next(iter(house.plan.levels))
    words = [name for name in house.plan.levels[lowest] if house.of(name)]
    arrows = drawn(house)
    # From the highest level down.
    boxes = sorted(arrows, key=lambda box: (-house.plan.height(box), box))
    rooms = [house.rooms[box] for box in boxes if box in house.rooms]
    fewest = reduced(arrows)
    titles = {box: box for box in boxes} | {lowest: f"{lowest}<br/>{', '.join(words)}"}
    lines = ["```mermaid", "flowchart TB"]
    lines += [f'    {box}["{titles[box]}"]' for box in boxes]
    lines += [f"    {start} --> {end}" for start in boxes for end in sorted(fewest[start])]
    lines += [
        f"    {room.name} -.-> {end}"
        for room in rooms
        for end in sorted(room.tags.get("lazily", ()))
    ]
    lines += ["```", "", "| room | owns | must not know | imports |", "|---|---|---|---|"]
    for room in rooms:
        owns, knows = said(room, house)
        ends = ", ".join(sorted(arrows[room.name]))
        lines.append(f"| `{room.name}` | {owns} | {knows} | {ends} |")
    for name in words:
        lines.append(f"| `{name}` | {said(house.rooms[name], house)[0]} | | |")
    return "\n".join(lines)


def architecture_page() -> str:
    """Return docs/architecture.md with the picture of today's imports between its two markers."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{ARCHITECTURE.name} has not the two markers of the picture")
    return f"{before}{begin}\n\n{picture(House())}\n\n{end}{after}"


def main(arguments: list[str]) -> None:
    match arguments:
        case ["picture"]:
            ARCHITECTURE.write_text(architecture_page(), encoding="utf-8")
        case ["files", *names] if names:
            print(",".join(files(drawing(), names)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
