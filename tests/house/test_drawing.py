"""The drawing is read as it is drawn, and the picture is of the imports that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

import house
from house import House, Room, drawing

PLAN = """
```house
words   what everybody names  [pure]
  errors    what goes wrong
  model     the nouns
wire    bytes
  wire      one message      [msgspec]
    (frame)
    [pure: frame,
    reader]

hub     one loop
  hub       clients, rooms   [lazily: asgi]
asgi    HTTP                 [apart]
  asgi      routes           [edge]
  other     nothing
  __main__  started
```
"""

SOURCE = {
    "__init__.py": "",
    "errors.py": '"""Errors.\n\nIt owns the error tree."""\n',
    "model.py": "from . import errors\n",
    "frame.py": "from .model import Close\n",
    "hub/__init__.py": (
        '"""It owns clients, of the `hub.room` kind. It must not know sockets,\nor HTTP. More."""\n'
    ),
    "hub/hub.py": (
        "from .. import frame\nfrom ..errors import Refused\ndef f():\n    from ..asgi import api\n"
    ),
    "asgi/__init__.py": "",
    "asgi/api.py": "from ..hub.hub import Hub\nfrom ..errors import Refused\nfrom .. import frame\n",
    "__main__.py": "from .asgi import api\n",
}

PICTURE = """```mermaid
flowchart TB
    asgi["asgi"]
    hub["hub"]
    wire["wire"]
    words["words<br/>errors, model"]
    asgi --> hub
    hub --> wire
    wire --> words
    hub -.-> asgi
```

| room | owns | must not know | imports |
|---|---|---|---|
| `asgi` | routes |  | hub, wire, words |
| `hub` | clients, of the `hub.room` kind | sockets, or HTTP | wire, words |
| `wire` | one message |  | words |
| `errors` | the error tree | | |
| `model` | the nouns | | |"""


@pytest.fixture
def small(tmp_path: Path) -> House:
    """A small house."""
    for name, text in SOURCE.items():
        path = tmp_path / "hubbub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return House(tmp_path / "hubbub", drawing(PLAN))


def test_the_drawing_is_read_as_it_is_drawn() -> None:
    plan = drawing(PLAN)
    assert plan.levels == {
        "words": ["errors", "model"],
        "wire": ["wire"],
        "hub": ["hub"],
        "asgi": ["asgi", "other", "__main__"],
    }
    assert plan.apart == {"asgi"}
    assert plan.rooms["model"] == Room(
        "model", "words", "the nouns", {"pure": frozenset()}, frozenset()
    )
    tags = {"msgspec": frozenset[str](), "pure": frozenset({"frame", "reader"})}
    assert plan.rooms["wire"] == Room("wire", "wire", "one message", tags, frozenset({"frame"}))
    assert plan.rooms["hub"].tags == {"lazily": {"asgi"}}
    assert [plan.height(name) for name in ("errors", "words", "hub", "unheard of")] == [0, 0, 2, 4]
    assert plan.named(frozenset({"words", "hub"})) == {"errors", "model", "hub"}


def test_a_drawing_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no block"):
        drawing("nothing here")
    with pytest.raises(ValueError, match="hub is drawn twice"):
        drawing("```house\nlow  said\n  hub  one\nhigh\n  hub  two\n```\n")


def test_the_picture_has_each_arrow_that_no_longer_way_implies(small: House) -> None:
    assert house.picture(small) == PICTURE


def test_arrows_that_go_round_stay_in_the_picture() -> None:
    arrows = {"a": {"b", "c"}, "b": {"a", "c"}, "c": set[str]()}
    assert house.reduced(arrows) == {"a": {"b"}, "b": {"a", "c"}, "c": set()}


def test_the_files_of_rooms_and_levels_are_those_that_coverage_takes(
    monkeypatch: pytest.MonkeyPatch, small: House, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(house, "SOURCE", small.source)
    assert house.files(small.plan, ["words", "wire", "hub"]) == [
        "src/hubbub/errors.py",
        "src/hubbub/frame.py",
        "src/hubbub/hub/*",
        "src/hubbub/model.py",
    ]
    with pytest.raises(ValueError, match="no such room or level: cellar"):
        house.files(small.plan, ["words", "cellar"])
    house.main(["files", "errors"])
    assert capsys.readouterr().out == "src/hubbub/errors.py\n"
    for wrong in ([], ["files"], ["paint"]):
        with pytest.raises(SystemExit, match="prints the files of rooms"):
            house.main(wrong)


def test_the_picture_is_written_between_its_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "architecture.md"
    monkeypatch.setattr(house, "ARCHITECTURE", page)
    page.write_text(f"above\n\n{house.BEGIN}\nold\n{house.END}\n\nbelow\n", encoding="utf-8")
    house.main(["picture"])
    text = page.read_text(encoding="utf-8")
    above, below = f"above\n\n{house.BEGIN}\n\n```mermaid\n", f"|\n\n{house.END}\n\nbelow\n"
    assert (text[: len(above)], text[-len(below) :]) == (above, below)
    assert "old" not in text
    assert house.architecture_page() == text, "writing it again changes nothing"
    page.write_text(f"{house.END}\n{house.BEGIN}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="markers"):
        house.architecture_page()


def test_the_picture_fits_a_screen() -> None:
    """About one box for each room, and few arrows."""
    lines = house.picture(House()).partition("\n```\n")[0].splitlines()
    assert len(lines) < 45
