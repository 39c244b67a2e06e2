"""`hubbub serve` and `hubbub demo`: real servers, and every way of saying no before one starts."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from commands import (
    PATIENCE_S,
    clean_environment,
    command,
    no_traceback,
    run,
    serving,
    taken_port,
)
from hubbub import Settings
from hubbub.brokers import local_server
from hubbub.cli import main
from hubbub.cli.serve import (
    Serving,
    apply_settings,
    demo,
    make_config,
    serve,
    share_a_broker,
    warn_about,
)
from hubbub.cli.target import read_target
from hubbub.errors import SettingsError
from hubbub.settings import rows
from hubbub.settings_values import shown
from serving import held_port

VALUES = {
    "compression": "shared",
    "slow_policy": "drop_newest",
    "origins": "https://example.com",
    "client_id_from_query": "yes",
    "on_invalid": "ignore",
    "on_handler_error": "stay",
    "on_rate_limit": "reply",
    "on_expiry": "ask",
    "room_rules": '[{"pattern": "chat:*", "history": 77}]',
    "workers_ok": "yes",
    "broker": "memory:///",
    "broker_prefix": "seven",
    "ping_interval_s": "11",
    "drain_s": "7",
}
"""A value for each setting that is not a plain number; for the others it is 77."""

REPORTING_APP = """
import dataclasses, json
from hubbub import Hub, Settings

hub = Hub()

async def pages(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    body = json.dumps(dataclasses.asdict(hub.settings)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

app = hub.mount(pages, "/ws")
"""


def get(address: str, path: str = "/") -> bytes:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


# Serving.


def test_without_app_the_ready_application_is_served() -> None:
    with serving("serve") as (server, address):
        assert b"Hubbub server" in get(address)
        with connect(f"ws://{address}/ws", proxy=None) as client:
            client.send("hello")
            assert client.recv(PATIENCE_S) == "hello"
        server.interrupt()
        assert server.wait() == 0
        assert "Traceback" not in server.err


def test_the_ready_application_takes_sdks() -> None:
    rules = '[{"pattern": "*", "history": 10, "publish": "members"}]'
    with (
        serving("serve", "--centrifuge", "--room-rules", rules) as (_, address),
        connect(f"ws://{address}/ws", proxy=None) as plain,
        connect(f"ws://{address}/connection/websocket", proxy=None) as sdk,
    ):
        sdk.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}')
        lines: list[str] = []
        while len(lines) < 2:
            lines += str(sdk.recv(PATIENCE_S)).split("\n")
        answers = [json.loads(line) for line in lines]
        assert [answer["id"] for answer in answers] == [1, 2]
        assert answers[1]["subscribe"]["recoverable"] is True
        plain.send("hello")
        assert json.loads(plain.recv(PATIENCE_S))["code"] == "not_available"
        assert b"connect a WebSocket client to /ws." in get(address)
        sdk.send('{"id":3,"publish":{"channel":"a","data":"hello"}}')
        told = [json.loads(line) for line in str(sdk.recv(PATIENCE_S)).split("\n")]
        assert told[0]["push"]["pub"]["data"] == "hello"


def ask_api(address: str, key: str, path: str = "/api/info") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("POST", path, b"{}", {"X-API-Key": key})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_the_ready_application_has_the_http_api_if_there_are_keys(tmp_path: Path) -> None:
    key = "a-key-of-these-tests-0123456789"
    (tmp_path / "keys.txt").write_text(f"# ours\n{key}\n", encoding="utf-8")
    flags = ("--api-keys-file", "keys.txt", "--log-level", "debug")
    for more in ((), ("--centrifuge",)):
        with serving("serve", *flags, *more, cwd=tmp_path) as (server, address):
            assert ask_api(address, key)[0] == 200
            assert ask_api(address, "wrong")[0] == 401
            assert get(address, "/healthz") == b"ok\n"
            stats = get(address, "/stats").decode()
            assert json.loads(stats)["settings"]["api_keys_file"] == "keys.txt"
            assert key not in stats + server.out + server.err
    with serving("serve") as (_, address):
        assert ask_api(address, key)[0] == 405, "the ready application's own pages"


def test_with_api_the_key_is_that_of_the_variable(tmp_path: Path) -> None:
    key = "#a-key-of-these-tests-0123456789"
    variables = {"API_KEY": key, "TMPDIR": str(tmp_path)}
    with serving("serve", "--api", env=variables) as (server, address):
        assert ask_api(address, key)[0] == 200
        assert ask_api(address, "wrong")[0] == 401
        server.interrupt()
        assert server.wait() == 0
        assert key not in server.out + server.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(key.encode() in path.read_bytes() for path in files)


def test_with_api_and_centrifuge_there_are_both(tmp_path: Path) -> None:
    key = "a-key-of-these-tests-0123456789"
    with serving("serve", "--api", "--centrifuge", env={"API_KEY": key}) as (_, address):
        assert ask_api(address, key)[0] == 200
        assert b"Not found" not in get(address, "/connection/websocket")


def test_with_api_a_file_of_keys_goes_before_the_variable(tmp_path: Path) -> None:
    key = "a-key-of-these-tests-0123456789"
    (tmp_path / "keys.txt").write_text(f"{key}\n", encoding="utf-8")
    flags = ("--api", "--api-keys-file", "keys.txt")
    with serving("serve", *flags, cwd=tmp_path, env={"API_KEY": f"not-{key}"}) as (_, address):
        assert ask_api(address, key)[0] == 200
        assert ask_api(address, f"not-{key}")[0] == 401


@pytest.mark.parametrize(
    ("arguments", "key", "says"),
    [
        (["--api"], "", "put one into the variable API_KEY, or name a file with --api-keys-file"),
        (["--api"], "too-short", "the variable API_KEY: an API key has 16 to 512"),
        (["app:app", "--api"], "a-key-of-these-tests", 'in APP write  hub.api("/api")'),
    ],
)
def test_an_api_that_cannot_be_is_one_sentence(
    arguments: list[str], key: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", key)
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2
    assert says in result.output
    assert not key or key not in result.output


def test_a_file_of_keys_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    said = no_traceback("serve", "--port", "0", "--api-keys-file", "nowhere", cwd=tmp_path)
    assert "api_keys_file = 'nowhere'" in said
    (tmp_path / "keys.txt").write_text("too-short\n", encoding="utf-8")
    said = no_traceback("serve", "--port", "0", "--api-keys-file", "keys.txt", cwd=tmp_path)
    assert "line 1: an API key has 16 to 512" in said
    assert "too-short" not in said


def test_sdks_of_an_application_need_its_route() -> None:
    result = CliRunner().invoke(main, ["serve", "app:app", "--centrifuge"])
    assert result.exit_code == 2
    assert (
        'in APP write  hub.router("/connection/websocket", dialect="centrifuge")' in result.output
    )


def test_s18_the_box_talks_to_itself() -> None:
    with serving("serve") as (_, address), command("connect", f"ws://{address}/ws") as client:
        client.send("one\ntwo\n")
        client.wait_for("^one\ntwo$")
        client.end_input()
        assert client.wait() == 0
        assert (client.out, client.err) == ("one\ntwo\n", "")


def test_s12_a_client_survives_the_server_s_death_and_return() -> None:
    with held_port() as port, command("serve", "--port", str(port)) as first:
        first.wait_for("Hubbub is at")
        with command("connect", f"ws://127.0.0.1:{port}/ws") as client:
            client.send("before\n")
            client.wait_for("^before$")
            first.process.kill()
            client.wait_for(r"connection lost \(1006 .*\); again in", "err")
            client.send("meanwhile\n")
            with command("serve", "--port", str(port)) as second:
                client.wait_for("^meanwhile$")
                client.end_input()
                # The server may have died before it could say that it had the first line.
                assert client.wait() == ("1 line may not have arrived" in client.err)
                second.interrupt()
                assert second.wait() == 0
        assert client.out == "before\nmeanwhile\n"


def test_ctrl_c_closes_clients_with_1012() -> None:
    with serving("serve") as (server, address):
        with connect(f"ws://{address}/ws", proxy=None) as client:
            server.interrupt()
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(PATIENCE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
        assert server.wait() == 0


def test_the_native_transport_serves(tmp_path: Path) -> None:
    (tmp_path / "who.py").write_text(
        "from hubbub import Hub\nfrom hubbub.hub.client import session_of\nhub = Hub()\napp = hub\n"
        "@hub.on_connect\ndef f(client):\n"
        "    client.send(type(session_of(client).transport).__name__)\n"
    )
    with (
        serving("serve", "who", cwd=tmp_path) as (_, address),
        connect(f"ws://{address}/ws", proxy=None) as client,
    ):
        assert client.recv(PATIENCE_S) == "NativeTransport"
        assert "Sec-WebSocket-Extensions" not in (
            client.response.headers if client.response else {}
        )


# Settings.


def test_s13_every_setting_has_its_flag() -> None:
    options = {param.name: param for param in serve.params}
    for row in rows():
        option = options[row.name]
        assert isinstance(option, click.Option)
        assert option.opts == [row.flag]
        assert option.help is not None
        assert row.doc in option.help
        assert f"[default: {shown(row.default)}]" in option.help
        if row.none:
            assert f"none: {row.none}" in option.help
        for choice in row.choices:
            assert choice in option.help


def test_s13_every_flag_reaches_the_hub(tmp_path: Path) -> None:
    (tmp_path / "reporting.py").write_text(REPORTING_APP)
    flags = [part for row in rows() for part in (row.flag, VALUES.get(row.name, "77"))]
    with serving("serve", "reporting", *flags, cwd=tmp_path) as (_, address):
        settings = json.loads(get(address))
    for row in rows():
        default = list(row.default) if isinstance(row.default, tuple) else row.default
        assert settings[row.name] != default, row.name
    assert settings["max_message_bytes"] == 77
    assert settings["origins"] == ["https://example.com"]


def test_a_keyword_in_the_code_wins_over_a_flag(tmp_path: Path) -> None:
    text = REPORTING_APP.replace("Hub()", "Hub(max_clients=3)")
    (tmp_path / "reporting.py").write_text(text)
    flags = ("--max-clients", "9", "--max-message-bytes", "2KiB")
    with serving("serve", "reporting:app", *flags, cwd=tmp_path) as (_, address):
        settings = json.loads(get(address))
    assert (settings["max_clients"], settings["max_message_bytes"]) == (3, 2048)


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MAX_CLIENTS", "5")
    assert apply_settings({"max_clients": None}).max_clients == 5
    assert apply_settings({"max_clients": "none"}).max_clients is None
    assert os.environ["HUBBUB_MAX_CLIENTS"] == "none"


def test_fault_16_an_empty_flag_is_one_that_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MAX_CLIENTS", "5")
    settings = apply_settings({"max_clients": "", "max_message_bytes": " "})
    assert (settings.max_clients, settings.max_message_bytes) == (5, 512)
    assert os.environ["HUBBUB_MAX_CLIENTS"] == "5"
    assert "HUBBUB_MAX_MESSAGE_BYTES" not in os.environ


def test_fault_16_a_server_starts_in_kubernetes(tmp_path: Path) -> None:
    (tmp_path / "reporting.py").write_text(REPORTING_APP)
    environ = {
        "HUBBUB_PORT": "tcp://10.0.0.1:80",
        "HUBBUB_SERVICE_HOST": "10.0.0.1",
        "HUBBUB_PORT_80_TCP": "tcp://10.0.0.1:80",
        "HUBBUB_MAX_MESSAGE_BYTES": "",
        "WEB_CONCURRENCY": "",
    }
    with serving("serve", "reporting", cwd=tmp_path, env=environ) as (server, address):
        assert json.loads(get(address))["max_message_bytes"] == 512
        server.interrupt()
        assert server.wait() == 0


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--max-clients", "many", "max_clients = 'many' (--max-clients): must be a whole number"),
        ("--max-clients", "0", "at least 1"),
        ("--ping-interval-s", "60", "smaller than pong_timeout_s, which is 60 seconds"),
        ("--slow-policy", "drop", "must be one of disconnect, drop_oldest, drop_newest, latest"),
        ("--origins", "example.com", "must be origins such as https://example.com"),
        ("--write-timeout-s", "soon", "must be a number of seconds, or none (never)"),
    ],
)
def test_a_wrong_flag_is_one_sentence(flag: str, value: str, expected: str) -> None:
    result = CliRunner().invoke(main, ["serve", flag, value])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert expected in result.stderr
    assert f"({flag})" in result.stderr
    assert result.stderr.count("\n") == 1
    assert flag.strip("-").replace("-", "_").upper() not in "".join(os.environ)


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--broker", "valky://a", "must be a URL such as"),
        ("--broker", "valkey://a/x/y", "broker (--broker)"),
        ("--api-keys-file", "nowhere", "No such file"),
    ],
)
def test_what_the_application_finds_wrong_in_a_flag_is_said_of_the_flag(
    flag: str, value: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "api.py").write_text("from hubbub import Hub\nhub = Hub()\napp = hub.api('/api')\n")
    said = no_traceback("serve", "api", flag, value, "--port", "0", cwd=tmp_path)
    assert expected in said
    assert f"({flag})" in said
    assert "HUBBUB_" not in said.replace("HUBBUB_BROKER=", "")


def test_a_wrong_variable_keeps_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_MAX_CLIENT", "5")
    with pytest.raises(SettingsError, match="did you mean HUBBUB_MAX_CLIENTS"):
        apply_settings({"max_message_bytes": "9"})


def test_help_keeps_the_settings_apart() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"]).output
    server, _, hub = text.partition("Settings of the hub:")
    assert "--port" in server
    assert "--max-clients" not in server
    assert "--max-clients" in hub
    assert "A keyword in the" in hub


# How uvicorn is set up.


def test_the_configuration_of_uvicorn() -> None:
    config = make_config(Serving(target=read_target("app"), log_level="trace"), 7.2)
    assert (config.app, config.ws, config.lifespan) == ("app:app", "hubbub:Protocol", "auto")
    assert config.http == "hubbub:HttpProtocol"
    assert config.proxy_headers
    trusting = make_config(Serving(target=read_target("app"), forwarded_allow_ips="10.0.0.5"), 7.2)
    assert trusting.forwarded_allow_ips == "10.0.0.5"
    assert config.ws_per_message_deflate is False
    assert config.timeout_graceful_shutdown == 10
    assert isinstance(config.log_config, dict)
    assert config.log_config["loggers"]["hubbub"]["level"] == "DEBUG"


def test_log_lines_of_the_hub_are_shown(tmp_path: Path) -> None:
    with serving("serve", "--max-clients", "1") as (server, address):
        url = f"ws://{address}/ws"
        with connect(url, proxy=None), pytest.raises(InvalidStatus, match="503"):
            connect(url, proxy=None).__enter__()
        server.wait_for("was refused: 503", "err")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forwarded_allow_ips": "*"}, "chooses the address"),
        ({"forwarded_allow_ips": "10.0.0.1,*"}, "chooses the address"),
        ({"forwarded_allow_ips": "*", "uds": "hubbub.sock"}, None),
        ({"forwarded_allow_ips": "10.0.0.1"}, None),
        ({"log_level": "trace"}, "tokens that are in them"),
    ],
)
def test_what_a_server_is_warned_of(
    options: dict[str, Any], words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_about(Serving(target=read_target("app"), **options))
    lines = capsys.readouterr().err
    assert lines.count("Warning: ") == (words is not None)
    assert words is None or words in lines


def test_fault_13_workers_get_the_flags_and_each_warns(tmp_path: Path) -> None:
    (tmp_path / "reporting.py").write_text(REPORTING_APP)
    flags = ("--workers", "2", "--max-clients", "4", "--broker", "memory://")
    with serving("serve", "reporting", *flags, cwd=tmp_path) as (server, address):
        server.wait_for(r"(?s)(WARNING: +this is one of 2 workers, .*){2}", "err")
        assert json.loads(get(address))["max_clients"] == 4
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def _framework_app(how: str) -> str:
    made = {
        "FastAPI": "from fastapi import FastAPI\napp = FastAPI()\napp.include_router(hub.router('/ws'))",
        "Starlette": "from starlette.applications import Starlette\n"
        "app = Starlette(routes=hub.routes('/ws'), lifespan=hub.lifespan)",
        "Litestar": "from litestar import Litestar\napp = Litestar(lifespan=[hub.lifespan])",
        "mounted": "from fastapi import FastAPI\napp = hub.mount(FastAPI(), '/ws')",
        "alone": "app = hub",
    }
    return f"from hubbub import Hub\nhub = Hub()\n{made[how]}\n"


@pytest.mark.parametrize("how", ["FastAPI", "Starlette", "Litestar", "mounted", "alone"])
def test_a_broker_that_is_away_is_one_line_in_every_framework(how: str, tmp_path: Path) -> None:
    (tmp_path / "away.py").write_text(_framework_app(how))
    with taken_port() as port:
        flags = ("--broker", f"valkey://127.0.0.1:{port}", "--port", "0")
    code, _, err = run("serve", "away", *flags, cwd=tmp_path)
    assert (code, "Traceback" in err) == (1, False), err
    assert len(re.findall(rf"ERROR: +.*127\.0\.0\.1:{port}", err)) == 1


SHARED_APP = """
import os
from hubbub import Client, Hub

hub = Hub()

@hub.on_connect
def greet(client: Client) -> None:
    client.send(str(os.getpid()))

@hub.on_message
def pass_on(client: Client, text: str) -> None:
    hub.broadcast(text)

app = hub
"""


def test_several_workers_share_a_server_that_they_start(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(SHARED_APP)
    clients: dict[str, ClientConnection] = {}
    with serving("serve", "shared", "--workers", "2", cwd=tmp_path) as (server, address):
        server.wait_for(r"2 workers share a local server, local://serve-\w+", "err")
        with ExitStack() as stack:
            while len(clients) < 2:  # until each worker has one
                client = stack.enter_context(connect(f"ws://{address}/ws", proxy=None))
                clients[str(client.recv(PATIENCE_S))] = client
            first, second = clients.values()
            first.send("for all")
            assert (first.recv(PATIENCE_S), second.recv(PATIENCE_S)) == ("for all", "for all")
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "one of 2 workers" not in server.err


@pytest.mark.parametrize("how", ["one worker", "reload", "meant so", "chosen", "not installed"])
def test_whose_workers_share_no_server(
    how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HUBBUB_BROKER", raising=False)
    if how == "chosen":
        monkeypatch.setenv("HUBBUB_BROKER", "memory://")
    if how == "not installed":
        monkeypatch.setattr(local_server, "has_local", lambda: False)
    workers = 1 if how == "one worker" else 2
    settings = Settings(workers_ok=how == "meant so")
    server = Serving(target=read_target("app"), workers=workers, reload=how == "reload")
    share_a_broker(server, settings, None, [settings])
    assert os.environ.get("HUBBUB_BROKER") == ("memory://" if how == "chosen" else None)
    assert ("hubbub[local]" in capsys.readouterr().err) == (how == "not installed")


def test_workers_of_which_none_may_be_alone_share_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_BROKER", "")
    settings = Settings(workers_ok="refuse")
    share_a_broker(Serving(target=read_target("app"), workers=2), settings, None, [settings])
    assert os.environ["HUBBUB_BROKER"].startswith("local://serve-")


@pytest.mark.parametrize("prefix", ["", "chat"])
def test_two_hubs_are_made_one_only_if_each_has_a_prefix(tmp_path: Path, prefix: str) -> None:
    text = (
        f"from hubbub import Hub\nchat = Hub(broker_prefix={prefix!r})\nadmin = Hub()\napp = chat\n"
    )
    (tmp_path / "two_hubs.py").write_text(text)
    with serving("serve", "two_hubs", "--workers", "2", cwd=tmp_path) as (server, address):
        assert get(address)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    assert ("several workers share nothing" in server.err) == (not prefix)


def test_reload_starts_again_when_a_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "reporting.py"
    path.write_text(REPORTING_APP)
    with serving("serve", "reporting", "--reload", cwd=tmp_path) as (server, address):
        assert json.loads(get(address))["max_clients"] is None
        with connect(f"ws://{address}/ws", proxy=None) as client:
            # At once, as editors do: half a file would be one change more.
            new = tmp_path / "reporting.new"
            new.write_text(REPORTING_APP.replace("Hub()", "Hub(max_clients=6)"))
            new.replace(path)
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE_S)
        assert json.loads(get(address))["max_clients"] == 6
        server.interrupt()
        assert server.wait() == 0


def test_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "hub.sock")
    with command("serve", "--uds", path) as server:
        server.wait_for(f"Hubbub is at unix:{re.escape(path)}")
        with unix_connect(path, "ws://localhost/ws") as client:
            client.send("over a file")
            assert client.recv(PATIENCE_S) == "over a file"
        server.interrupt()
        assert server.wait() == 0
    assert not Path(path).exists()


def test_tls(certificate: tuple[str, str]) -> None:
    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)
    arguments = ("serve", "--ssl-certfile", cert, "--ssl-keyfile", key)

    async def speak(address: str) -> str:
        # Not the client with threads: one may not write by TLS while another reads (OpenSSL).
        async with connect_async(f"wss://{address}/ws", ssl=context, proxy=None) as client:
            await client.send("secret")
            return await client.recv(decode=True)

    with serving(*arguments) as (server, address):
        assert "https://" in server.out
        assert asyncio.run(speak(address)) == "secret"


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("no certificate")
    text = run("serve", "--port", "0", "--ssl-certfile", str(path), "--ssl-keyfile", str(path))
    assert text[0] == 1
    assert "Error: the certificate or its key is no good" in text[2]
    assert "Traceback" not in text[2]


# Saying no.


@pytest.mark.parametrize("name", ["serve", "demo"])
def test_a_port_in_use(name: str) -> None:
    with taken_port() as port:
        text = no_traceback(name, "--port", str(port))
    assert f"port {port} of 127.0.0.1 is in use" in text
    assert "--port" in text


def test_no_such_address() -> None:
    assert "there is no such address" in no_traceback("serve", "--host", "no.such.host.invalid")
    # An address that is kept for documentation (RFC 5737), which no machine has.
    assert "this machine has no such address" in no_traceback("serve", "--host", "192.0.2.1")


def test_an_application_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import no_such_thing\n")
    port = ("--port", "0")
    assert "no module 'missing'" in no_traceback("serve", "missing", *port, cwd=tmp_path)
    assert "'no_such_thing', which is not" in no_traceback("serve", "app", *port, cwd=tmp_path)
    assert "write app:app" in no_traceback("serve", "app.py", *port, cwd=tmp_path)
    text = no_traceback("serve", "missing", "--reload", *port, cwd=tmp_path)
    assert "no module 'missing'" in text


def test_the_folder_of_the_application(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "reporting.py").write_text(REPORTING_APP)
    arguments = ("serve", "reporting", "--app-dir", "sub")
    with serving(*arguments, cwd=tmp_path) as (_, address):
        assert json.loads(get(address))["max_clients"] is None


def test_a_factory(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "from hubbub import Hub\ndef create():\n    return Hub(max_clients=1)\n"
    )
    with (
        serving("serve", "made:create", "--factory", cwd=tmp_path) as (_, address),
        connect(f"ws://{address}/", proxy=None) as client,
    ):
        client.send("made")
        assert client.recv(PATIENCE_S) == "made"


def test_a_wrong_setting_in_the_code(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from hubbub import Hub\napp = Hub(max_client=5)\n")
    text = no_traceback("serve", "app", "--port", "0", cwd=tmp_path)
    assert "app: max_client (keyword): no such setting; did you mean max_clients?" in text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_is_exit_code_1(workers: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from hubbub import Hub\nhub = Hub()\n"
        "async def inner(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        "app = hub.mount(inner)\n"
    )
    arguments = ("--port", "0", "--workers", workers, "--broker", "memory://")
    code, out, err = run("serve", "app", *arguments, cwd=tmp_path)
    assert code == 1
    assert (out == "") is (workers == "1"), "several workers are announced before they start"
    assert "no database" in err
    assert err.endswith("Error: the server did not start; see the lines above\n")
    assert "Traceback" not in err


def test_a_number_of_workers_that_is_none() -> None:
    text = no_traceback("serve", "--port", "0", env={"WEB_CONCURRENCY": "all"})
    assert "WEB_CONCURRENCY='all': must be a number of processes" in text


def without(tmp_path: Path, module: str) -> dict[str, str]:
    """Return an environment in which a module is not installed."""
    lines = ["import importlib.util", "found = importlib.util.find_spec"]
    lines += [
        f"importlib.util.find_spec = lambda n, p=None: None if n == {module!r} else found(n, p)"
    ]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    source = clean_environment()["PYTHONPATH"]
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{source}"}


def test_a_missing_extra(tmp_path: Path) -> None:
    text = no_traceback("demo", "--port", "0", env=without(tmp_path, "jinja2"))
    assert "jinja2 is not installed: run  pip install 'hubbub[demo]'" in text


def test_a_missing_uvloop(tmp_path: Path) -> None:
    text = no_traceback("serve", "--port", "0", env=without(tmp_path, "uvloop"))
    assert "uvloop is not installed: run  pip install uvloop" in text


# The demo.


def test_the_demo_says_where_it_is() -> None:
    with command("demo", "--port", "0") as server:
        address = server.wait_for(r"http://localhost:(\d+)/websocket")
        url = f"127.0.0.1:{address[1]}"
        assert b"<html" in get(url, "/websocket")
        server.interrupt()
        assert server.wait() == 0


def test_the_demo_listens_on_8080() -> None:
    options: dict[str | None, Any] = {one.name: one.default for one in demo.params}
    assert (options["host"], options["port"]) == ("127.0.0.1", 8080)


def test_two_servers_do_not_share_a_port() -> None:
    with serving("serve") as (_, address):
        port = address.rpartition(":")[2]
        results: list[str] = []
        threads = [
            threading.Thread(target=lambda: results.append(no_traceback("serve", "--port", port)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(results) == 2
