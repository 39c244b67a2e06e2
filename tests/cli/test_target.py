"""Finding the application: what it may be called, and what is said when it is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from hubbub.cli.target import load, read_target, require_module, use_folder
from hubbub.hub.hub import Hub

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Write a module into a folder that is then looked in; modules are forgotten afterwards."""
    before_path, before_modules = sys.path[:], set(sys.modules)
    use_folder(str(tmp_path))

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.path[:] = before_path
    for name in set(sys.modules) - before_modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def why_not(text: str, folder: str = ".") -> str:
    with pytest.raises(click.ClickException) as caught:
        load(read_target(text), folder)
    message = caught.value.format_message()
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("app", "app:app"), ("app:web", "app:web"), ("a.b.c:d.e", "a.b.c:d.e"), ("app:", "app:app")],
)
def test_how_app_is_written(text: str, expected: str) -> None:
    assert str(read_target(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app.py", "write app:app"),
        ("web/app.py:site", "write web.app:site"),
        ("./app.py", "write app:app"),
        ("", "such as app:app, which '' is not"),
        ("my-app", "which 'my-app' is not"),
        (":app", "which ':app' is not"),
    ],
)
def test_how_app_is_not_written(text: str, expected: str) -> None:
    with pytest.raises(click.ClickException, match=expected):
        read_target(text)


def test_an_application_and_its_hubs(write: Write) -> None:
    write("deep_hubs", "from hubbub import Hub\nnews = Hub(max_clients=7)\n")
    write(
        "good_app",
        "from hubbub import Hub\nimport deep_hubs\n"
        "def make():\n    return [Hub(max_clients=9)]\n"
        "hub = Hub(max_clients=5)\nhidden = make()\napp = hub.mount(hub)\n",
    )
    loaded = load(read_target("good_app"), ".")
    assert callable(loaded.app)
    assert {hub.settings.max_clients for hub in loaded.hubs.values()} == {5, 7, 9}
    assert loaded.hubs["good_app:hub"].settings.max_clients == 5
    assert loaded.hubs["deep_hubs:news"].settings.max_clients == 7


def test_hubs_of_others_are_not_taken_for_its_own(write: Write) -> None:
    other = Hub()
    write("lonely_app", "async def app(scope, receive, send): ...\n")
    assert load(read_target("lonely_app"), ".").hubs == {}
    assert other.client_count == 0


def test_a_factory_makes_the_application(write: Write) -> None:
    write("made_app", "from hubbub import Hub\ndef create():\n    return Hub(max_clients=3)\n")
    loaded = load(read_target("made_app:create"), ".", is_factory=True)
    assert isinstance(loaded.app, Hub)
    assert [hub.settings.max_clients for hub in loaded.hubs.values()] == [3]


def test_no_such_module(tmp_path: Path) -> None:
    message = why_not("no_such_app:app", str(tmp_path))
    assert f"there is no module 'no_such_app' in {tmp_path}" in message
    assert "--app-dir" in message
    assert "there is no module 'no_such_package'" in why_not("no_such_package.app:app")


def test_a_module_that_it_needs_is_missing(write: Write) -> None:
    write("needy_app", "import no_such_thing\n")
    assert why_not("needy_app") == (
        "the module 'needy_app' needs the module 'no_such_thing', which is not installed"
    )


def test_no_such_attribute(write: Write) -> None:
    write("named_app", "application = print\n")
    assert why_not("named_app:aplication") == (
        "the module 'named_app' has no 'aplication'; did you mean named_app:application?"
    )
    assert why_not("named_app:zzz") == "the module 'named_app' has no 'zzz'"


def test_what_is_no_application(write: Write) -> None:
    write("dict_app", "app = {}\n")
    message = "dict_app:app is no ASGI application: it is of the type dict"
    assert why_not("dict_app") == message


def test_a_wrong_setting_in_the_code(write: Write) -> None:
    write("wrong_app", "from hubbub import Hub\nhub = Hub(max_mesage_bytes=5)\n")
    assert why_not("wrong_app") == (
        "wrong_app: max_mesage_bytes (keyword): no such setting; did you mean max_message_bytes?"
    )


def test_a_missing_extra(write: Write) -> None:
    write("extra_app", "from hubbub import MissingExtra\nraise MissingExtra('jinja2', 'demo')\n")
    assert why_not("extra_app") == "jinja2 is not installed: run  pip install 'hubbub[demo]'"


def test_any_other_error_says_where(write: Write) -> None:
    write("broken_helper", "def f():\n    return 1 / 0\n")
    write("broken_app", "import broken_helper\nbroken_helper.f()\n")
    message = why_not("broken_app")
    assert "failed with ZeroDivisionError: division by zero (broken_helper.py, line 2)" in message
    assert "python -c 'import broken_app'" in message


def test_a_syntax_error_names_its_line(write: Write) -> None:
    write("syntax_app", "x = = 1\n")
    message = why_not("syntax_app")
    assert "SyntaxError" in message
    assert "(syntax_app.py, line 1)" in message


def test_a_module_is_found_without_being_run(write: Write) -> None:
    write("unrun_app", "raise RuntimeError\n")
    require_module(read_target("unrun_app"), ".")
    assert "unrun_app" not in sys.modules
    with pytest.raises(click.ClickException, match="there is no module 'no_such_app'"):
        require_module(read_target("no_such_app"), ".")
    with pytest.raises(click.ClickException, match="there is no module 'no_such_package'"):
        require_module(read_target("no_such_package.app"), ".")
