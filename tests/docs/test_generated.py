"""The generated pages: up to date, complete, and written by a generator that notices."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gen_api
import hubbub
from places import ROOT

# One page is simulated, which takes many seconds of a core: on a busy machine a minute is too little.
pytestmark = pytest.mark.timeout(300)


def test_the_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_docs.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_generator_notices_a_stale_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("gen_docs", ROOT / "tools" / "gen_docs.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    for folder in ("docs/guides", "src/hubbub"):
        (tmp_path / folder).mkdir(parents=True)
    assert generator.main(["--check"]) == 1
    stale = "docs/settings.md, docs/close-codes.md, src/hubbub/settings_keywords.py"
    assert f"out of date: {stale}" in capsys.readouterr().err
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "docs" / "settings.md").write_text("old", encoding="utf-8")
    assert generator.main(["--check"]) == 1


def test_fault_32_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    titles = set(re.findall(r"^###+ (?:hubbub\.)?([\w.]+)$", page, re.MULTILINE))
    assert set(hubbub.__all__) <= titles
    hub_methods = [
        "on_connect",
        "on_message",
        "on",
        "on_disconnect",
        "on_drop",
        "authenticate",
        "authorize",
        "validate",
        "every",
        "lifespan",
        "router",
        "routes",
        "mount",
        "attach",
        "broadcast",
        "publish",
        "disconnect",
        "kick",
        "nodes",
        "start",
        "stop",
        "room",
        "everybody",
        "to_user",
        "clients_of",
        "client",
        "client_count",
        "rooms",
        "is_running",
        "stats",
    ]
    assert {f"Hub.{name}" for name in hub_methods} <= titles
    assert {"Hub.lost", "Hub.register", "Client.offer", "Frame.wire"} & titles == set()
    sections = re.split(r"^###+ .*$", page, flags=re.MULTILINE)[1:]
    assert all(re.sub(r"```.*?```", "", section, flags=re.DOTALL).strip() for section in sections)


PACKAGE = {
    "__init__.py": """
from .thing import Kind, Thing, make
if TYPE_CHECKING:
    from .lazy import Lazy
__all__ = ["Kind", "Lazy", "Thing", "make"]
""",
    "thing.py": '''
class Keywords(TypedDict, total=False):
    """Keywords."""

    size: int
    """How large."""
    name: str | None

class Base:
    def shared(self, /, x: int = 1) -> str:
        """Be inherited."""

class Kind(NamedTuple):
    """A kind."""

    a: int
    """The first."""
    b: str = "x"

class Thing(Base):
    """A thing."""

    def __init__(self, *, x: Literal["a", "b"] = "a", **keywords: Unpack[Keywords]) -> None: ...

    @property
    def size(self) -> int:
        """How large it is."""

    @size.setter
    def size(self, value: int) -> None: ...

    @overload
    def get(self, key: int) -> int: ...
    @overload
    async def get(self, key: str, default: object = ...) -> str: ...
    def get(self, key, default=None):
        """Get it."""

    @overload
    def on(self, function: F) -> F: ...
    @overload
    def on(self, function: G) -> G: ...
    def on(self, function):
        """Call it."""

    def every(self, seconds: float) -> Callable[[F | G], F]:
        """Call it often."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be open."""

    def _own(self) -> None:
        """Nobody's business."""

@overload
def make(x: int) -> int: ...
@overload
def make(x: str) -> str: ...
def make(x):
    """Make one."""
''',
    "lazy.py": """
if TYPE_CHECKING:
    Lazy = Annotated[Thing, 1]
else:
    Lazy = Annotated[Base, 1]
'A lazy one.'
""",
}


API_OF_PACKAGE = """# Head

## Things

### package.Thing

```py
Thing(*, x: Literal["a", "b"] = "a", **keywords: Unpack[Keywords])
```

Keywords: `size`, `name`.

A thing.

#### Thing.size

```py
size: int
```

How large it is.

#### Thing.get

```py
get(key: int) -> int
async get(key: str, default: object = ...) -> str
```

Get it.

#### Thing.on

```py
@hub.on
```

Call it.

#### Thing.every

```py
@hub.every(seconds: float)
```

Call it often.

#### Thing.open

```py
async with open()
```

Be open.

#### Thing.shared

```py
shared(x: int = 1) -> str
```

Be inherited.

## Others

### package.Kind

A kind.

- `a: int`: The first.
- `b: str = "x"`

### package.Lazy

A lazy one.

### package.make

```py
make(x: int) -> int
make(x: str) -> str
```

Make one.
"""


def test_fault_32_the_generator_reads_overloads_properties_and_keywords(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(text, encoding="utf-8")
    page = gen_api.Page(gen_api.Package(folder), "package")
    assert page.write("# Head", {"Things": ["Thing"], "Empty": ["nothing"]}) == API_OF_PACKAGE
