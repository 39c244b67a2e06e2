"""Read the drawing of the house from docs/design.md: its bands and the modules in them.

The drawing is the one place that says which module is in which band. `tests/house/test_house.py`
proves that the code obeys it; `make coverage` asks here for the files of a band:

    python tools/house.py words mechanics hub      prints their paths, joined by commas
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hubbub"
DESIGN = ROOT / "docs" / "design.md"


class House(NamedTuple):
    """The drawing: bands from the lowest up, each with its modules; who may use msgspec."""

    bands: dict[str, list[str]]
    msgspec: set[str]


def drawing(text: str | None = None) -> House:
    """Parse the fenced block ```house of the design (None: of docs/design.md)."""
    page = DESIGN.read_text(encoding="utf-8") if text is None else text
    block = re.search(r"^```house\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError("docs/design.md has no block that begins with ```house")
    bands: dict[str, list[str]] = {}
    msgspec: set[str] = set()
    for line in block[1].splitlines():
        if not line.strip():
            continue
        first = line.split()[0]
        if not line.startswith(" "):
            band = bands.setdefault(first, [])
            continue
        band.append(first)
        if "[msgspec]" in line:
            msgspec.add(first)
    return House(bands, msgspec)


def path_of(module: str) -> Path:
    """Return the file of a module, or the folder of a package."""
    folder = SOURCE / module
    return folder if folder.is_dir() else SOURCE / f"{module}.py"


def main(bands: list[str]) -> None:
    house = drawing()
    modules = [module for band in bands for module in house.bands[band]]
    print(",".join(str(path_of(module).relative_to(ROOT)) for module in modules))


if __name__ == "__main__":
    main(sys.argv[1:])
