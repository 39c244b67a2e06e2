"""Which hubs are meant: the options, and where the key of an API comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from calling import KEY
from cli.ways import reached, run

pytestmark = pytest.mark.anyio

OTHER = "another-key-0123456789"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--api", "http://127.0.0.1:1/api"], "the API wants a key"),
        (["--api", "http://127.0.0.1:1", "--broker", "valkey://h"], "--api stands instead of"),
        (["--api", "http://127.0.0.1:1", "--prefix", "p"], "--api stands instead of"),
        (["--api-key-file", __file__], "--api-key-file needs --api"),
    ],
)
async def test_options_that_exclude_or_need_one_another(arguments: list[str], text: str) -> None:
    done = await run("rooms", *arguments)
    assert (done.exit_code, text in done.output) == (2, True), done.output


async def test_the_key_comes_from_a_file_a_variable_or_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"# of the shop\n\n {KEY}\n{OTHER}\n")
    (tmp_path / "none").write_text("# nothing\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    async with reached("api") as (_, _, _, api):
        for arguments, variable, code in (
            (["--api-key-file", str(tmp_path / "key")], OTHER, 0),
            ([], KEY, 0),
            (["--api-key", KEY], OTHER, 0),
            ([], OTHER, 1),
            (["--api-key-file", str(tmp_path / "none")], KEY, 1),
            (["--api-key-file", str(tmp_path / "bytes")], KEY, 1),
            (["--api-key", "two words"], None, 1),
        ):
            done = await run("rooms", "--api", api, *arguments, env={"API_KEY": variable})
            assert done.exit_code == code, done.output
            assert KEY not in done.output
            assert OTHER not in done.output
            assert "Traceback" not in done.output


async def test_no_help_shows_a_key() -> None:
    done = await run("tail", "--help", env={"API_KEY": KEY})
    assert (done.exit_code, KEY in done.output) == (0, False)
