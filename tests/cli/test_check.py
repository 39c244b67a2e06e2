"""`hubbub check`: what is in force, and what is dangerous."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from commands import run, taken_port
from hubbub.cli import main
from hubbub.cli.check import Environment, check_settings
from hubbub.settings import Settings, rows
from valkey_server import server_url

ENVIRONMENT = Environment(open_files=1000, memory_bytes=1024**3)


@pytest.fixture(autouse=True)
def _no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBBUB_MAX_CLIENTS", raising=False)


def warned(environment: Environment = ENVIRONMENT, **keywords: Any) -> set[str]:
    settings = Settings(**keywords)
    return {one.about for one in check_settings(settings, environment) if one.level == "warning"}


def test_the_defaults_are_worth_notes_but_no_warning() -> None:
    findings = list(check_settings(Settings(), ENVIRONMENT))
    assert {finding.level for finding in findings} == {"note"}
    assert {finding.about for finding in findings} == {
        "max_clients",
        "max_clients_per_address",
        "messages_per_second",
        "--limit-concurrency",
    }
    assert "1,000 files" in next(one.text for one in findings if one.about == "max_clients")


@pytest.mark.parametrize(
    ("about", "keywords"),
    [
        ("origins", {"origins": "*"}),
        ("max_message_bytes", {"max_message_bytes": None}),
        ("max_message_bytes", {"max_message_bytes": 17 * 1024**2}),
        ("max_clients", {"max_clients": 1000}),
        ("outbox_max_bytes", {"max_clients": 900, "outbox_max_bytes": 2 * 1024**2}),
        ("outbox_max_bytes", {"outbox_max_bytes": 64 * 1024**2}),
        ("max_rooms_per_client", {"max_rooms_per_client": None}),
        ("handshake_timeout_s", {"handshake_timeout_s": 61}),
        ("write_timeout_s", {"write_timeout_s": None}),
        ("pong_timeout_s", {"pong_timeout_s": 900}),
        ("ping_interval_s", {"pong_timeout_s": 120, "ping_interval_s": 90}),
    ],
)
def test_what_is_dangerous(about: str, keywords: dict[str, Any]) -> None:
    assert warned(**keywords) == {about}


def test_what_the_machine_lacks() -> None:
    assert warned(Environment(has_uvloop=False)) == {"uvloop"}
    assert warned(Environment(limit_concurrency="100")) == {"--limit-concurrency"}
    assert warned(Environment(), max_clients=10**9, outbox_max_bytes=10**9) == set()


def test_compression_is_worth_a_note() -> None:
    findings = check_settings(Settings(compression="shared"), ENVIRONMENT)
    notes = {finding.about: finding for finding in findings if finding.level == "note"}
    assert "secret" in notes["compression"].text


@pytest.mark.parametrize(
    ("environment", "about"),
    [
        (Environment(forwarded_allow_ips="*"), {"--forwarded-allow-ips"}),
        (Environment(forwarded_allow_ips="10.0.0.1, *"), {"--forwarded-allow-ips"}),
        (Environment(forwarded_allow_ips="10.0.0.1,10.1.0.0/16"), set()),
        (Environment(log_level="DEBUG"), {"--log-level"}),
        (Environment(log_level="trace"), {"--log-level"}),
        (Environment(log_level="warning"), set()),
        (Environment(is_debugging=True), {"asyncio"}),
    ],
)
def test_what_the_environment_weakens(environment: Environment, about: set[str]) -> None:
    assert warned(environment) == about


@pytest.mark.parametrize(
    ("count", "keywords", "about"),
    [
        (None, {}, set()),
        ("1", {}, set()),
        ("all", {}, set()),
        ("2", {}, {"--workers"}),
        ("2", {"workers_ok": True}, set()),
        ("2", {"workers_ok": "refuse"}, {"--workers"}),
    ],
)
def test_fault_13_the_workers_that_servers_would_start_are_a_warning(
    count: str | None, keywords: dict[str, Any], about: set[str]
) -> None:
    assert warned(Environment(web_concurrency=count), **keywords) == about


def test_a_compiled_part_that_is_missing_is_a_warning() -> None:
    assert warned(Environment(uncompiled=("websockets",))) == {"websockets"}
    assert warned(Environment(has_uvloop=False, uncompiled=("uvloop",))) == {"uvloop"}


def test_fault_31_without_uvloop_it_names_the_loop_that_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where nobody misses it too: on Windows there is none."""
    environment = Environment(has_uvloop=True, uncompiled=("uvloop",))
    monkeypatch.setattr(Environment, "detect", classmethod(lambda kind: environment))
    result = CliRunner().invoke(main, ["check", "--json"])
    [report] = json.loads(result.output)["hubs"]
    assert report["runtime"]["loop"] == "asyncio"
    assert "uvloop" not in report["runtime"]["compiled"]


def test_fault_31_it_says_what_a_hub_would_run_on(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_BROKER)
    code, out, _ = run("check", "own", "--json", cwd=tmp_path, env={"WEB_CONCURRENCY": "3"})
    [report] = json.loads(out)["hubs"]
    assert (code, report["runtime"]) == (
        0,
        {
            "transport": {
                "hubbub serve": "native",
                "uvicorn --ws hubbub:Protocol": "native",
                "any other server": "portable",
            },
            "loop": "uvloop",
            "compiled": ["httptools", "msgspec", "uvloop", "websockets"],
            "broker": "Postal",
            "workers": 3,
        },
    )
    code, out, _ = run("check", env={"WEB_CONCURRENCY": "3"})
    assert "  compiled    parts of httptools, msgspec, uvloop, websockets\n" in out
    assert "  broker      memory\n  workers     3, if the server is not told otherwise\n" in out
    assert "warning: --workers: WEB_CONCURRENCY=3: most servers start so many workers" in out


@pytest.mark.parametrize("app", [None, "plain"])
def test_a_broker_that_cannot_be_reached_is_a_warning(app: str | None, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("import hubbub\napp = hubbub.Hub()\n")
    with taken_port() as port:
        url = f"valkey://127.0.0.1:{port}"
    code, out, err = run("check", *([app] if app else []), cwd=tmp_path, env={"HUBBUB_BROKER": url})
    [said] = [line for line in out.splitlines() if line.startswith("warning: broker: ")]
    assert (code, "Traceback" in err) == (0, False)
    assert f"127.0.0.1:{port}" in said
    assert said.endswith("; a server that is started now ends, with the exit code 1")


def test_a_broker_that_can_be_reached_is_none() -> None:
    code, out, _ = run("check", env={"HUBBUB_BROKER": server_url()})
    assert (code, "warning: broker" in out) == (0, False)


OWN_BROKER = """
import hubbub


class Postal(hubbub.MemoryBroker):
    pass


app = hub = hubbub.Hub(broker=Postal())
"""


def test_a_hub_without_an_authenticate_handler_is_worth_a_note() -> None:
    for authenticates in (True, False):
        findings = check_settings(Settings(), ENVIRONMENT, authenticates=authenticates)
        texts = [one.text for one in findings if one.about == "authenticate"]
        assert len(texts) == (not authenticates)
        assert authenticates or "everybody may connect" in texts[0]


def test_warnings_come_first() -> None:
    settings = Settings(origins=("*",), client_id_from_query=True)
    levels = [finding.level for finding in check_settings(settings, ENVIRONMENT)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == "warning"


def test_this_environment_is_known() -> None:
    environment = Environment.detect()
    assert environment.open_files is None or environment.open_files > 0
    assert environment.memory_bytes is not None
    assert environment.memory_bytes > 0


def test_s13_the_table_says_where_each_setting_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MAX_CLIENTS", "50")
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    for row in rows():
        assert any(line.split()[:1] == [row.name] for line in lines)
    (line,) = (line for line in lines if line.split()[:1] == ["max_clients"])
    assert line.split() == ["max_clients", "50", "clients", "environment,", "HUBBUB_MAX_CLIENTS"]
    assert "note: messages_per_second: " in result.output


def test_json_has_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_ORIGINS", "*")
    result = CliRunner().invoke(main, ["check", "--json"])
    (report,) = json.loads(result.output)["hubs"]
    values = {row["name"]: row for row in report["settings"]}
    assert set(values) == {row.name for row in rows()}
    assert values["origins"] == {
        "name": "origins",
        "value": ["*"],
        "unit": "origins",
        "source": "environment, HUBBUB_ORIGINS",
    }
    assert report["dangers"][0]["about"] == "origins"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("HUBBUB_PING_INTERVAL_S", "70", "must be smaller than pong_timeout_s"),
        ("HUBBUB_MAX_CLIENT", "70", "did you mean HUBBUB_MAX_CLIENTS?"),
        ("HUBBUB_MAX_CLIENTS", "many", "must be a whole number of clients"),
    ],
)
def test_an_impossible_setting_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_hubs_of_an_application(tmp_path: Path) -> None:
    (tmp_path / "two_hubs.py").write_text(
        "from hubbub import Hub\nchat = Hub(max_clients=5)\nnews = Hub(origins='*')\napp = chat\n"
        "@news.authenticate\ndef who(handshake):\n    return handshake.query.get('user')\n"
    )
    env = {"HUBBUB_PONG_TIMEOUT_S": "59"}
    code, out, err = run("check", "two_hubs", "--json", cwd=tmp_path, env=env)
    assert (code, err) == (0, "")
    reports = {report["hub"]: report for report in json.loads(out)["hubs"]}
    assert set(reports) == {"two_hubs:chat", "two_hubs:news"}
    chat = {row["name"]: row for row in reports["two_hubs:chat"]["settings"]}
    assert (chat["max_clients"]["value"], chat["max_clients"]["source"]) == (5, "keyword")
    assert chat["pong_timeout_s"]["source"] == "environment, HUBBUB_PONG_TIMEOUT_S"
    for name, are_anonymous in (("two_hubs:chat", True), ("two_hubs:news", False)):
        about = {one["about"] for one in reports[name]["dangers"]}
        assert ("authenticate" in about) == are_anonymous
    code, out, err = run("check", "two_hubs", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "warning: origins: any web page may connect" in out
    assert out.count("note: authenticate: ") == 1


def test_an_application_without_a_hub(tmp_path: Path) -> None:
    (tmp_path / "no_hub.py").write_text("async def app(scope, receive, send): ...\n")
    code, out, err = run("check", "no_hub", "--app-dir", str(tmp_path))
    assert (code, out) == (1, "")
    assert "no hub was made" in err
