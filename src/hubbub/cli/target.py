"""Finding the application that a command names, and the hubs in it.

What must not live here: serving, printing. `hubbub serve` and `hubbub check` call it. Whatever is
wrong with the application becomes one sentence that names the module and what is missing.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import operator
import os
import sys
import traceback
from collections.abc import Callable, Set
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import click

from ..errors import HubbubError, MissingExtra
from ..hub.hub import Hub, all_hubs

DEFAULT_APP = "hubbub.app:app"
CENTRIFUGE_APP = "hubbub.app:centrifuge_app"
API_APP = "hubbub.app:api_app"
CENTRIFUGE_API_APP = "hubbub.app:centrifuge_api_app"
_DEFAULT_ATTRIBUTE = "app"


class Target(NamedTuple):
    """A place like `package.module:attribute`."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


class Loaded(NamedTuple):
    """An application, and the hubs that its import made, by where they are."""

    target: Target
    app: Callable[..., Any]
    hubs: dict[str, Hub]


def read_target(text: str) -> Target:
    """Read APP as a person writes it: `module:attribute`; without an attribute it is `app`."""
    module, _, attribute = text.partition(":")
    target = Target(module, attribute or _DEFAULT_ATTRIBUTE)
    is_file = module.endswith(".py") or "/" in module or os.sep in module
    if is_file:
        stem = module.removesuffix(".py").strip("./").replace(os.sep, ".").replace("/", ".")
        raise click.ClickException(
            f"APP is a module and an attribute, not a file: write {stem}:{target.attribute}"
        )
    if not all(part.isidentifier() for part in f"{module}.{target.attribute}".split(".")):
        raise click.ClickException(
            f"APP is a module and an attribute, such as app:app, which {text!r} is not"
        )
    return target


def use_folder(folder: str) -> None:
    """Let modules be found in `folder`, before all others."""
    path = str(Path(folder).resolve())
    if sys.path[:1] != [path]:
        sys.path.insert(0, path)


def require_module(target: Target, folder: str) -> None:
    """Make sure that the module exists, without running it (its packages are run)."""
    try:
        spec = importlib.util.find_spec(target.module)
    except Exception as error:
        raise click.ClickException(_why_not(target, folder, error)) from error
    if spec is None:
        raise click.ClickException(_no_module(target.module, folder))


def load(target: Target, folder: str, *, is_factory: bool = False) -> Loaded:
    """Import the application; with `is_factory` the attribute is called to make it."""
    before = {id(hub) for hub in all_hubs()}
    try:
        module = importlib.import_module(target.module)
        app = _attribute(module, target)
        made = app() if is_factory else app
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException(_why_not(target, folder, error)) from error
    if not callable(made):
        kind = type(made).__name__
        raise click.ClickException(f"{target} is no ASGI application: it is of the type {kind}")
    return Loaded(target, made, name_hubs(module, before))


def _attribute(module: ModuleType, target: Target) -> Any:
    try:
        return operator.attrgetter(target.attribute)(module)
    except AttributeError:
        names = [name for name in vars(module) if not name.startswith("_")]
        near = difflib.get_close_matches(target.attribute, names, n=1)
        hint = f"; did you mean {target.module}:{near[0]}?" if near else ""
        raise click.ClickException(
            f"the module {target.module!r} has no {target.attribute!r}{hint}"
        ) from None


def _no_module(name: str, folder: str) -> str:
    return (
        f"there is no module {name!r} in {Path(folder).resolve()} or among the installed packages;"
        " --app-dir says where else to look"
    )


def _why_not(target: Target, folder: str, error: Exception) -> str:
    """Say in one sentence why the import failed."""
    name = target.module
    if isinstance(error, MissingExtra):
        return str(error)
    if isinstance(error, HubbubError):
        return f"{name}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{name}.".startswith(f"{error.name}."):
            return _no_module(error.name, folder)
        return f"the module {name!r} needs the module {error.name!r}, which is not installed"
    text = " ".join(str(error).split()) or "no message"
    return (
        f"importing the module {name!r} failed with {type(error).__name__}: {text}"
        f"{_where(error)};  python -c 'import {name}'  shows it all"
    )


def _where(error: Exception) -> str:
    """Return the file and line where it happened, leaving out the machinery of importing."""
    if isinstance(error, SyntaxError):
        return ""  # its text names them
    frames = traceback.extract_tb(error.__traceback__)[1:]
    files = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    outside = [frame for frame in files if "importlib" not in Path(frame.filename).parts]
    if not outside:
        return ""
    return f" ({Path(outside[-1].filename).name}, line {outside[-1].lineno})"


def name_hubs(module: ModuleType | None = None, before: Set[int] = frozenset()) -> dict[str, Hub]:
    """Return hubs by the best name there is: those that the import of `module` made, or that it holds.

    `before` are those that were there already. Without a module it is all hubs of this process.
    """
    names: dict[int, str] = {}
    first = [] if module is None else [module]
    for each in [*first, *list(sys.modules.values())]:
        for name, value in list(getattr(each, "__dict__", {}).items()):
            if issubclass(type(value), Hub):
                names.setdefault(id(value), f"{each.__name__}:{name}")
    hubs: dict[str, Hub] = {}
    for hub in all_hubs():
        name = names.get(id(hub), f"hub {len(hubs) + 1} (no attribute of a module)")
        if id(hub) not in before or (module and name.startswith(f"{module.__name__}:")):
            hubs[name] = hub
    return dict(sorted(hubs.items()))
