"""The command as a whole: its parts, and how it says no."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import click
import pytest
from click.testing import CliRunner

import hubbub
from hubbub.cli import main
from hubbub.errors import HubbubError, MissingExtra, SettingsError


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> click.Command:
    """A command that raises what its test puts into `failing.error`."""
    monkeypatch.setattr(main, "commands", dict(main.commands))

    @main.command("fail")
    @click.pass_context
    def fail(ctx: click.Context) -> None:
        raise ctx.obj

    return fail


def test_the_commands() -> None:
    context = click.Context(main)
    assert main.list_commands(context) == [
        "bench",
        "check",
        "connect",
        "demo",
        "kick",
        "publish",
        "rooms",
        "serve",
        "tail",
        "who",
    ]
    result = CliRunner().invoke(main, ["--help"])
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert f"  {name:<7}  {command.short_help}\n" in result.output
    assert main.get_command(context, "nonsense") is None


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [(["--help"], set()), (["--version"], set()), (["check"], {"check"})],
)
def test_it_imports_no_more_of_the_commands_than_it_runs(
    arguments: list[str], needed: set[str]
) -> None:
    code = (
        "import json, sys\n"
        "from hubbub.cli import main\n"
        f"main({arguments}, standalone_mode=False)\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('hubbub.cli.')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = {
        name.removeprefix("hubbub.cli.") for name in json.loads(done.stdout.splitlines()[-1])
    }
    assert imported == {"main", *needed}


def test_the_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"hubbub {hubbub.__version__}\n")


def test_the_script_of_the_package_is_this_function() -> None:
    (script,) = entry_points(group="console_scripts", name="hubbub")
    assert script.value == "hubbub.cli:main"


@pytest.mark.parametrize(
    "name", ["demo", "serve", "connect", "bench", "check", "publish", "who", "rooms", "kick"]
)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: main {name} ")


@pytest.mark.parametrize(
    "error",
    [
        HubbubError("a sentence"),
        MissingExtra("jinja2", "demo"),
        SettingsError("max_clients", "many", "must be a whole number of clients"),
    ],
)
@pytest.mark.usefixtures("failing")
def test_errors_of_hubbub_are_one_sentence(error: HubbubError) -> None:
    result = CliRunner().invoke(main, ["fail"], obj=error)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {error}\n"
    assert result.stdout == ""


@pytest.mark.usefixtures("failing")
def test_errors_of_programming_are_not_hidden() -> None:
    error = RuntimeError("a bug")
    assert CliRunner().invoke(main, ["fail"], obj=error).exception is error


def test_a_wrong_option_names_the_right_one() -> None:
    result = CliRunner().invoke(main, ["serve", "--max-mesage-bytes", "5"])
    assert result.exit_code == 2
    assert "--max-message-bytes" in result.stderr
