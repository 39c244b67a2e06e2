"""The types of hubbub.js and rooms.js compile in every kind of project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from node import run_node
from places import ROOT, SOURCE, TESTS

STATIC = SOURCE / "static"
USES = TESTS / "end_to_end" / "js" / "types"
TSC = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
NODE_TYPES = ROOT / "node_modules" / "@types"
EVERY_PROJECT: dict[str, Any] = {
    "strict": True,
    "noEmit": True,
    "skipLibCheck": False,
    "skipDefaultLibCheck": True,
    "target": "ES2022",
    "noUncheckedIndexedAccess": True,
    "verbatimModuleSyntax": True,
    "types": [],
}
PROJECTS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "dom": (
        ["uses.ts", "dom.ts"],
        {"lib": ["ES2022", "DOM"], "module": "NodeNext", "moduleResolution": "NodeNext"},
    ),
    "node": (
        ["uses.ts", "node.ts"],
        {
            "lib": ["ES2022"],
            "module": "NodeNext",
            "moduleResolution": "NodeNext",
            "types": ["node"],
            "typeRoots": [str(NODE_TYPES)],
        },
    ),
    "neither": (
        ["uses.ts"],
        {"lib": ["ES2022"], "module": "NodeNext", "moduleResolution": "NodeNext"},
    ),
    "rooms": (
        ["uses-rooms.ts"],
        {
            "lib": ["ES2022"],
            "module": "NodeNext",
            "moduleResolution": "NodeNext",
            "exactOptionalPropertyTypes": True,
        },
    ),
    "exact": (
        ["uses.ts", "dom.ts", "uses-rooms.ts"],
        {
            "lib": ["ES2022", "DOM"],
            "module": "NodeNext",
            "moduleResolution": "NodeNext",
            "exactOptionalPropertyTypes": True,
        },
    ),
    "bundler": (
        ["uses.ts", "dom.ts"],
        {
            "lib": ["ES2022", "DOM", "DOM.Iterable"],
            "module": "ESNext",
            "moduleResolution": "bundler",
            "isolatedModules": True,
        },
    ),
}


def test_fault_26_the_types_compile_in_every_kind_of_project(tmp_path: Path) -> None:
    """All in one run, in which tsc reads its own libraries once."""
    if not TSC.exists():
        pytest.fail("TypeScript is missing: run  make browser")
    folders = [make_project(tmp_path / project, *PROJECTS[project]) for project in PROJECTS]
    run_node(str(TSC), "--build", *map(str, folders))


def make_project(folder: Path, files: list[str], options: dict[str, Any]) -> Path:
    """Write a TypeScript project that uses the types of both clients."""
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    config = {"compilerOptions": EVERY_PROJECT | options, "files": files}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    for name in ("hubbub.d.ts", "rooms.d.ts"):
        shutil.copy(STATIC / name, folder)
    for name in files:
        shutil.copy(USES / name, folder)
    return folder
