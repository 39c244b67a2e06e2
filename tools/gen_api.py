"""The page of the public API, from signatures and docstrings; `gen_docs.py` writes it.

It reads the source and imports nothing, so that what it writes does not depend on the Python that
runs it: a signature is shown as it is written, with its overloads and its keywords.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

GROUPS = {
    "The hub": ["Hub", "HubDep"],
    "Clients and rooms": [
        *("Client", "Room", "User", "Close", "Handshake", "Identity"),
        *("ClientInfo", "PresenceStats"),
    ],
    "Messages": ["Frame", "wire.frame.encode", "Publication", "Position", "Receipt"],
    "Settings": ["Settings"],
    "Tokens": [
        "TokenVerifier",
        "tokens.ConnectionToken",
        "tokens.SubscriptionToken",
        "tokens.SubscriptionOptions",
        "tokens.Override",
    ],
    "Servers": ["Protocol", "HttpProtocol"],
    "The HTTP API": ["ApiKey"],
    "Brokers": ["Broker", "MemoryBroker"],
    "The Python client": [
        *("connect", "Connection", "RoomConnection"),
        *("Subscription", "RoomMessage", "RoomPage"),
    ],
    "Errors": [
        "HubbubError",
        "CommandError",
        "ProtocolError",
        "Disconnected",
        "CommandFailed",
        "MessagesMissed",
        "Unsubscribed",
        "Refused",
        "SettingsError",
        "HubNotRunning",
        "BrokerError",
        "BrokerUnavailable",
        "PublishedInPart",
        "TokenError",
        "TokenInvalid",
        "TokenExpired",
        "TokenKeysUnavailable",
        "MissingExtra",
        "errors.should_come_back",
    ],
    "Tests": [
        "testing.connect",
        "testing.follow",
        "testing.settle",
        "testing.set_clock",
        "testing.advance_time",
        "testing.open_client",
        "testing.FakeClock",
        "testing.MemoryClient",
        "testing.MemoryTransport",
        "testing.RoomClient",
    ],
}
"""Headings and what stands under each: names of the package, and `module.name` of documented modules.
What the package exports and no heading names stands under the last one."""

OTHERS = "Others"

INTERNAL = {
    "ApiKey": "is_key is_same may_call may_use",
    "Frame": "deflated has_text text_seen wire",
    "MemoryTransport": ("abort bind close pause_reading ping resume_reading write write_progress"),
}
"""Methods that the hub's own parts call: they may change without a word, and are not shown."""
CLOSED = {"UvicornWebSocketProtocol", "UvicornHttpProtocol"}
"""Classes whose methods a server calls, and nobody else."""
GIVEN = {"Client", "Room", "User", "Connection", "RoomConnection", "Subscription"}
"""Classes whose instances the hub gives: nobody makes them."""
ELSEWHERE = {"Settings": "Its fields are [the settings](settings.md)."}
"""Classes whose fields another page has."""

_SHOWN_SPECIAL = {"__len__", "__iter__", "__contains__", "__aiter__", "__anext__", "__call__"}
_PROPERTIES = {"property", "cached_property", "functools.cached_property"}
_CONTEXTS = {"contextmanager", "asynccontextmanager"}


@dataclass
class Found:
    """A name's definition, and the module it stands in."""

    node: ast.stmt
    module: str
    doc: str


class Package:
    """The source of a package, by module."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[str, ast.Module] = {}

    def tree(self, module: str) -> ast.Module:
        """Return a module's syntax tree."""
        if module not in self._trees:
            path = self._folder.joinpath(*module.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            self._trees[module] = ast.parse(file.read_text(encoding="utf-8"))
        return self._trees[module]

    def exports(self) -> list[str]:
        """Return the package's `__all__`."""
        found = self.find("__all__", "__init__")
        assert found is not None
        assert isinstance(found.node, (ast.Assign, ast.AnnAssign))
        names: list[str] = ast.literal_eval(ast.unparse(found.node.value or ast.List([])))
        return names

    def find(self, name: str, module: str = "__init__") -> Found | None:
        """Return the definition of a name as a module knows it, through imports of ours."""
        body = list(_statements(self.tree(module)))
        for position, node in enumerate(body):
            if name in _defined(node):
                # An overload has no docstring: what it is an overload of has one, and stands behind.
                if not _is_overload(node):
                    behind = [each for each in body[position:] if name not in _defined(each)]
                    return Found(node, module, _doc_of(node) or _string(behind[:1]))
            elif isinstance(node, ast.ImportFrom) and node.level and node.module:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.find(alias.name, self._module_of(node, module))
        return None

    def _module_of(self, node: ast.ImportFrom, importer: str) -> str:
        """Return the module that a relative import of `importer` is from."""
        package = [] if importer == "__init__" else importer.split(".")
        is_package = self._folder.joinpath(*package).is_dir()
        up = node.level - is_package  # a package's `.` is itself
        return ".".join([*package[: len(package) - up], *(node.module or "").split(".")])

    def overloads(self, name: str, module: str) -> list[Function]:
        """Return the overloads of a module's function."""
        return _overloads(name, _statements(self.tree(module)))

    def lineage(self, found: Found) -> list[Found]:
        """Return a class and those of the package that it inherits from, nearest first."""
        assert isinstance(found.node, ast.ClassDef)
        line = [found]
        for base in found.node.bases:
            parent = self.find(ast.unparse(base).partition("[")[0], found.module)
            if parent is not None and isinstance(parent.node, ast.ClassDef):
                line += self.lineage(parent)
        return line


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those that stand under an `if` too."""
    for node in tree.body:
        if isinstance(node, ast.If):
            yield from [*node.body, *node.orelse]
        else:
            yield node


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _doc_of(node: ast.stmt) -> str:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return ast.get_docstring(node) or ""
    return ""


def _string(following: list[ast.stmt]) -> str:
    """Return the string that stands behind an assignment, as its docstring."""
    for node in following:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return inspect.cleandoc(str(node.value.value))
    return ""


def _decorators(node: Function) -> list[str]:
    return [ast.unparse(each) for each in node.decorator_list]


def _is_overload(node: ast.stmt) -> bool:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    return any(each.rpartition(".")[2] == "overload" for each in _decorators(node))


def _overloads(name: str, body: Iterable[ast.stmt]) -> list[Function]:
    return [
        node
        for node in body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name == name
        and _is_overload(node)
    ]


def signature(node: Function, name: str, *, is_method: bool) -> str:
    """Return a function's parameters and what it returns, under `name`.

    A decorator is shown as one writes it: `@hub.on(kind: str)`.
    """
    given = list(_each(node.args))
    if is_method and "staticmethod" not in _decorators(node):
        given = given[2:] if given[1:2] == ["/"] else given[1:]
    returns = _text(node.returns) if node.returns else "Any"
    if given and given[0].split(":")[0] == "function":
        return f"@hub.{name}"
    if re.match(r"Callable\[\[[^]]*\], \w+\]$", returns):
        return f"@hub.{name}({', '.join(given)})"
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    if any(each.rpartition(".")[2] in _CONTEXTS for each in _decorators(node)):
        return f"{prefix}with {name}({', '.join(given)})"
    return _folded(f"{prefix}{name}", given, returns)


def _folded(name: str, given: list[str], returns: str) -> str:
    """Write a signature on one line, or each parameter on one."""
    line = f"{name}({', '.join(given)}) -> {returns}"
    if len(line) <= 96:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in given) + f") -> {returns}"


def _text(node: ast.expr) -> str:
    """Return an expression as it is written here, with double quotes."""
    return re.sub(r"'([^'\"\\]*)'", r'"\1"', ast.unparse(node))


def _each(args: ast.arguments) -> Iterator[str]:
    """Yield the parameters one by one, as they are written."""
    positional = [*args.posonlyargs, *args.args]
    without = len(positional) - len(args.defaults)
    for position, each in enumerate(positional):
        default = args.defaults[position - without] if position >= without else None
        yield _parameter(each, default)
        if args.posonlyargs and position == len(args.posonlyargs) - 1:
            yield "/"
    if args.vararg:
        yield f"*{_parameter(args.vararg, None)}"
    elif args.kwonlyargs:
        yield "*"
    for each, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield _parameter(each, default)
    if args.kwarg:
        yield f"**{_parameter(args.kwarg, None)}"


def _parameter(each: ast.arg, default: ast.expr | None) -> str:
    text = each.arg + (f": {_text(each.annotation)}" if each.annotation else "")
    return text if default is None else f"{text} = {_text(default)}"


HEAD = """# API

All names that `import hubbub` gives, and those of other modules that the guides use. What stands
nowhere here is the hub's own business and may change without a word, whatever its name is.

"Any thread" means any: the method hands its work to the hub's event loop and does not wait for it.
What only reads (`len(hub)`, iterating over it, `hub.rooms`, `hub.stats()`, `hub.room(name)`) gives any
thread a picture of one moment. All else is for the hub's event loop."""


def page(source: Path) -> str:
    """Return the page of the package in the folder `source`."""
    return Page(Package(source), source.name).write(HEAD, GROUPS)


class Page:
    """Writes the page, name by name."""

    def __init__(self, package: Package, name: str) -> None:
        self.package = package
        self.name = name

    def write(self, head: str, groups: dict[str, list[str]]) -> str:
        """Return the page: `head`, then each group with its names, then all others."""
        placed = {name for names in groups.values() for name in names}
        others = [name for name in self.package.exports() if name not in placed]
        parts = [head]
        for title, names in {**groups, OTHERS: others}.items():
            entries = [entry for name in names if (entry := self._entry(name))]
            if entries:
                parts += [f"## {title}", *entries]
        return "\n\n".join(parts) + "\n"

    def _entry(self, name: str) -> str:
        module, _, short = name.rpartition(".")
        found = self.package.find(short, module or "__init__")
        if found is None:
            return ""
        title = f"### {self.name}.{name}"
        node = found.node
        if isinstance(node, ast.ClassDef):
            return "\n\n".join([title, *self._class(node, found)])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            overloads = self.package.overloads(node.name, found.module)
            shown = self._functions(overloads or [node], short, found, is_method=False)
            return "\n\n".join([title, *shown, found.doc])
        return f"{title}\n\n{found.doc}"

    def _class(self, node: ast.ClassDef, found: Found) -> Iterator[str]:
        line = self.package.lineage(found)
        if node.name not in CLOSED | GIVEN:
            yield from self._made(node, line)
        yield found.doc
        if node.name in CLOSED:
            return
        if node.name in ELSEWHERE:
            yield ELSEWHERE[node.name]
        else:
            yield from self._fields(node)
        seen = set(INTERNAL.get(node.name, "").split())
        for ancestor in line:
            assert isinstance(ancestor.node, ast.ClassDef)
            yield from self._members(ancestor, node.name, seen)

    def _made(self, node: ast.ClassDef, line: list[Found]) -> Iterator[str]:
        """Yield how an instance is made."""
        for ancestor in line:
            assert isinstance(ancestor.node, ast.ClassDef)
            body = ancestor.node.body
            inits: list[Function] = [
                each
                for each in body
                if isinstance(each, ast.FunctionDef) and each.name == "__init__"
            ]
            if inits:
                chosen = _overloads("__init__", body) or inits[-1:]
                texts = self._functions(chosen, node.name, ancestor, is_method=True)
                yield from (text.replace(" -> None", "") for text in texts)
                return

    def _fields(self, node: ast.ClassDef) -> Iterator[str]:
        """Yield the fields of a dataclass, a NamedTuple or a TypedDict, with their docstrings."""
        rows = []
        for position, each in enumerate(node.body):
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                if each.target.id.startswith("_") or "ClassVar" in ast.unparse(each.annotation):
                    continue
                is_plain = each.value is not None and not isinstance(each.value, ast.Call)
                value = f" = {_text(each.value)}" if is_plain and each.value else ""
                text = f"- `{each.target.id}: {_text(each.annotation)}{value}`"
                doc = _string(node.body[position + 1 : position + 2])
                rows.append(f"{text}: {' '.join(doc.split())}" if doc else text)
        if rows:
            yield "\n".join(rows)

    def _members(self, found: Found, owner: str, seen: set[str]) -> Iterator[str]:
        """Yield methods and properties that are for users and not shown yet."""
        assert isinstance(found.node, ast.ClassDef)
        body = found.node.body
        for node in body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            is_special = node.name.startswith("_")
            if node.name in seen or (is_special and node.name not in _SHOWN_SPECIAL):
                continue
            if any(each.endswith((".setter", ".deleter")) for each in _decorators(node)):
                continue
            seen.add(node.name)
            overloads = _overloads(node.name, body)
            same = [each for each in body if _defined(each) == {node.name}]
            doc = next((doc for doc in map(_doc_of, same) if doc), "")
            if not doc and is_special:
                continue
            yield f"#### {owner}.{node.name}"
            if set(_decorators(node)) & _PROPERTIES:
                returns = _text(node.returns) if node.returns else "Any"
                yield f"```py\n{node.name}: {returns}\n```"
            else:
                yield from self._functions(overloads or [node], node.name, found, is_method=True)
            if doc:
                yield doc

    def _functions(
        self, nodes: list[Function], name: str, found: Found, *, is_method: bool
    ) -> Iterator[str]:
        lines = dict.fromkeys(signature(node, name, is_method=is_method) for node in nodes)
        yield "```py\n" + "\n".join(lines) + "\n```"
        for node in nodes:
            yield from self._unpacked(node, found)

    def _unpacked(self, node: Function, found: Found) -> Iterator[str]:
        """Yield what `**keywords: Unpack[Name]` takes."""
        annotation = node.args.kwarg.annotation if node.args.kwarg else None
        match = re.fullmatch(r"(?:\w+\.)?Unpack\[(\w+)\]", ast.unparse(annotation or ast.Name("_")))
        keywords = self.package.find(match[1], found.module) if match else None
        if keywords is None or not isinstance(keywords.node, ast.ClassDef):
            return
        names = [
            name
            for ancestor in self.package.lineage(keywords)
            if isinstance(ancestor.node, ast.ClassDef)
            for each in ancestor.node.body
            for name in _defined(each)
        ]
        yield "Keywords: " + ", ".join(f"`{name}`" for name in names) + "."
