"""`hubbub check`: the settings in force, where each came from, and which of them are dangerous.

What must not live here: serving. `check_settings` is a pure function of settings and of what is
known about the machine and the environment.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click
import msgspec

from ..brokers.broker import Broker
from ..brokers.memory import MemoryBroker
from ..brokers.schemes import broker_at
from ..errors import BrokerError
from ..hub.runtime import NATIVE, PARTS, PORTABLE, broker_name, compiled_parts
from ..settings import Settings, rows
from ..settings_values import shown, visible

if TYPE_CHECKING:
    from ..hub.hub import Hub

HUGE_MESSAGE_BYTES = 16 * 1024**2
LONG_PONG_TIMEOUT_S = 300.0
LONG_HANDSHAKE_S = 60.0
PROXY_IDLE_S = 60.0
"""After so many seconds of silence nginx and many load balancers cut a connection."""
_MIB = 1024**2


class Finding(NamedTuple):
    """A warning is something to change or to have reasons for; a note is something to know."""

    level: Literal["warning", "note"]
    about: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What this machine, this installation and the environment variables say. None: not known."""

    open_files: int | None = None
    memory_bytes: int | None = None
    has_uvloop: bool = True
    uncompiled: tuple[str, ...] = ()
    """Packages whose compiled parts cannot be loaded."""
    web_concurrency: str | None = None
    limit_concurrency: str | None = None
    forwarded_allow_ips: str | None = None
    log_level: str | None = None
    is_debugging: bool = False

    @property
    def workers(self) -> int:
        """How many workers most servers start here."""
        text = (self.web_concurrency or "").strip()
        return int(text) if text.isdecimal() else 1

    @classmethod
    def detect(cls) -> Environment:
        """Return what is known here."""
        wants_uvloop = sys.platform != "win32" and sys.implementation.name == "cpython"
        return cls(
            open_files=_open_files(),
            memory_bytes=_memory_bytes(),
            has_uvloop=not wants_uvloop or importlib.util.find_spec("uvloop") is not None,
            uncompiled=tuple(sorted(PARTS.keys() - set(compiled_parts(load=True)))),
            web_concurrency=os.environ.get("WEB_CONCURRENCY"),
            limit_concurrency=os.environ.get("UVICORN_LIMIT_CONCURRENCY"),
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS"),
            log_level=os.environ.get("UVICORN_LOG_LEVEL"),
            is_debugging=bool(os.environ.get("PYTHONASYNCIODEBUG")) or sys.flags.dev_mode,
        )


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def check_settings(
    settings: Settings,
    environment: Environment,
    *,
    authenticates: bool = True,
    is_connected: bool = False,
    broker_failure: str = "",
) -> Iterator[Finding]:
    """Yield what is dangerous in these settings in this environment, the worst first.

    `authenticates`: whether the hub has an authenticate handler; True where no hub is known. `is_connected`:
    whether a broker connects it with those of other workers; `broker_failure` why that cannot be used now.
    """
    found = [*_of_input(settings), *_of_size(settings, environment), *_of_time(settings)]
    found += [
        *_of_installation(environment),
        *_of_environment(environment),
        *([] if is_connected else _of_workers(settings, environment)),
    ]
    if broker_failure:
        text = f"{broker_failure}; a server that is started now ends, with the exit code 1"
        found.append(Finding("warning", "broker", text))
    if not authenticates:
        text = "there is no handler: everybody may connect, and nobody has a name"
        found.append(Finding("note", "authenticate", text))
    yield from sorted(found, key=lambda finding: finding.level != "warning")


def _of_input(settings: Settings) -> Iterator[Finding]:
    if "*" in settings.origins:
        text = "any web page may connect, with the cookies of the person who looks at it"
        yield Finding("warning", "origins", text)
    size = settings.max_message_bytes
    if size is None:
        text = "one client can send a message that fills the memory"
        yield Finding("warning", "max_message_bytes", text)
    elif size > HUGE_MESSAGE_BYTES:
        text = f"each client can make the server hold {size / _MIB:,.0f} MiB while it sends"
        yield Finding("warning", "max_message_bytes", text)
    if settings.messages_per_second is None:
        text = (
            "a client may send as fast as it can; everybody hears it where messages are passed on"
        )
        yield Finding("note", "messages_per_second", text)
    if settings.compression == "shared":
        text = (
            "a secret and text that others choose, in one message, give the secret away by length"
        )
        yield Finding("note", "compression", text)
    if settings.client_id_from_query:
        text = "client ids are wishes then, never a proof of who somebody is"
        yield Finding("note", "client_id_from_query", text)
    if settings.max_rooms_per_client is None:
        text = "where clients choose rooms, one of them can fill the memory with rooms"
        yield Finding("warning", "max_rooms_per_client", text)


def _of_size(settings: Settings, environment: Environment) -> Iterator[Finding]:
    clients, files = settings.max_clients, environment.open_files
    if clients is None:
        end = "" if files is None else f": the {files:,} files that a process may open are the end"
        yield Finding("note", "max_clients", f"there is no limit of the hub's own{end}")
    elif files is not None and clients >= files:
        text = f"a process may open {files:,} files only, and each client is one: raise  ulimit -n"
        yield Finding("warning", "max_clients", text)
    if settings.max_clients_per_address is None:
        text = "one address can take every place there is"
        yield Finding("note", "max_clients_per_address", text)
    memory, each = environment.memory_bytes, settings.outbox_max_bytes
    if clients is not None and memory is not None and clients * each > memory:
        text = (
            f"{clients:,} clients that are all slow hold {clients * each / _MIB:,.0f} MiB; this "
            f"machine has {memory / _MIB:,.0f} MiB"
        )
        yield Finding("warning", "outbox_max_bytes", text)
    elif memory is not None and each > memory // 100:
        text = f"a hundred slow clients hold more than this machine's {memory / _MIB:,.0f} MiB"
        yield Finding("warning", "outbox_max_bytes", text)


def _of_time(settings: Settings) -> Iterator[Finding]:
    if settings.write_timeout_s is None:
        text = "a socket that takes nothing is kept until its pongs stop"
        yield Finding("warning", "write_timeout_s", text)
    if settings.handshake_timeout_s > LONG_HANDSHAKE_S:
        text = (
            f"a client that says nothing holds a file for {settings.handshake_timeout_s:g} seconds"
        )
        yield Finding("warning", "handshake_timeout_s", text)
    if settings.pong_timeout_s > LONG_PONG_TIMEOUT_S:
        text = f"a dead client counts as connected for {settings.pong_timeout_s:g} seconds"
        yield Finding("warning", "pong_timeout_s", text)
    if settings.ping_interval_s >= PROXY_IDLE_S:
        text = f"nginx and others cut connections that are silent for {PROXY_IDLE_S:g} seconds"
        yield Finding("warning", "ping_interval_s", text)


def _of_installation(environment: Environment) -> Iterator[Finding]:
    if not environment.has_uvloop:
        text = "it is not installed; asyncio's own loop is slower: pip install uvloop"
        yield Finding("warning", "uvloop", text)
    for package in sorted({*environment.uncompiled} - {"uvloop"}):
        text = "its compiled part is missing and all that it does is slower: install a wheel of it"
        yield Finding("warning", package, text)
    trap = (
        "uvicorn counts open sockets too: with as many of them, every HTTP request, health checks "
        "included, is answered 503. Use max_clients instead"
    )
    if environment.limit_concurrency:
        text = f"UVICORN_LIMIT_CONCURRENCY={environment.limit_concurrency}: {trap}"
        yield Finding("warning", "--limit-concurrency", text)
    else:
        text = f"if uvicorn is started with it, which cannot be seen from here: {trap}"
        yield Finding("note", "--limit-concurrency", text)


def _of_workers(settings: Settings, environment: Environment) -> Iterator[Finding]:
    if environment.workers > 1 and settings.workers_ok is not True:
        effect = "and workers_ok has none start while another is there"
        if not settings.workers_ok:
            effect = "and each has clients and rooms of its own: a broadcast reaches those of one worker only"
        text = (
            f"WEB_CONCURRENCY={environment.workers}: most servers start so many workers, {effect}. "
            "Name a broker "
            "that connects them, as in  HUBBUB_BROKER=valkey://localhost:6379 , or start them with  --workers 1"
        )
        yield Finding("warning", "--workers", text)


def _of_environment(environment: Environment) -> Iterator[Finding]:
    trusted = [part.strip() for part in (environment.forwarded_allow_ips or "").split(",")]
    if "*" in trusted:
        text = (
            "FORWARDED_ALLOW_IPS=*: whoever reaches the server without the proxy chooses the "
            "address that he has; name the proxies"
        )
        yield Finding("warning", "--forwarded-allow-ips", text)
    if (environment.log_level or "").lower() in ("debug", "trace"):
        text = (
            f"UVICORN_LOG_LEVEL={environment.log_level}: such lines may show headers and messages"
        )
        yield Finding("warning", "--log-level", text)
    if environment.is_debugging:
        text = "PYTHONASYNCIODEBUG or Python's development mode is on: the event loop is far slower"
        yield Finding("warning", "asyncio", text)


@click.command()
@click.argument("app", required=False)
@click.option("--app-dir", default=".", show_default=True, help="Where the module of APP is.")
@click.option("--factory", is_flag=True, help="APP is a function that returns the application.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(app: str | None, app_dir: str, factory: bool, as_json: bool) -> None:
    """Print the settings in force and where each came from; warn of dangerous ones.

    With APP (such as  app:app ) it is imported, and the hubs in it are shown; without, what the
    environment says. It is tried whether the broker can be reached. Exit code 1 when a setting is impossible, 0 otherwise.
    """
    environment = Environment.detect()
    if app is None:
        settings = Settings.load()
        broker = broker_at(settings.broker, settings.source("broker"))
        findings = check_settings(
            settings,
            environment,
            is_connected=_connects(broker),
            broker_failure=_failure_of(settings),
        )
        reports = [_report("environment", settings, findings, _runtime(environment, broker))]
    else:
        hubs = _hubs_of(app, app_dir, factory)
        reports = [_report_of(name, hub, environment) for name, hub in hubs.items()]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"hubs": reports}), indent=2))
    else:
        click.echo("\n\n".join(_text(report) for report in reports))


def _hubs_of(app: str, folder: str, is_factory: bool) -> dict[str, Hub]:
    from .target import load, read_target, use_folder  # a hub and all that it needs

    target = read_target(app)
    use_folder(folder)
    hubs = load(target, folder, is_factory=is_factory).hubs
    if not hubs:
        raise click.ClickException(
            f"{target} was imported, and no hub was made; if a function makes it, use --factory"
        )
    return hubs


def _report_of(name: str, hub: Hub, environment: Environment) -> dict[str, Any]:
    from ..hub.core import core_of

    authenticates = core_of(hub).handlers.authenticate is not None
    broker = core_of(hub).broker
    findings = check_settings(
        hub.settings,
        environment,
        authenticates=authenticates,
        is_connected=_connects(broker),
        broker_failure=_failure_of(hub.settings),
    )
    return _report(name, hub.settings, findings, _runtime(environment, broker))


def _report(
    name: str, settings: Settings, findings: Iterable[Finding], runtime: dict[str, Any]
) -> dict[str, Any]:
    values = [
        {
            "name": row.name,
            "value": visible(getattr(settings, row.name)),
            "unit": row.unit,
            "source": settings.source(row.name),
        }
        for row in rows()
    ]
    return {
        "hub": name,
        "settings": values,
        "runtime": runtime,
        "dangers": [finding._asdict() for finding in findings],
    }


def _connects(broker: Broker) -> bool:
    return not isinstance(broker, MemoryBroker)


def _failure_of(settings: Settings) -> str:
    """Return why the broker of these settings cannot be used now; nothing for one that can.

    One that the application has made is left alone, and so is a local server, which would be started.
    """
    from ..hub.core import core_of
    from ..hub.hub import Hub

    url = settings.broker
    if not isinstance(url, str) or url.strip().lower().startswith(("memory:", "local:")):
        return ""

    async def reach() -> None:
        hub = Hub(broker=url, broker_prefix=settings.broker_prefix, room_rules=[], drain_s=0.0)
        core_of(hub).serves_clients = False
        await hub.start()
        await hub.stop()

    try:
        asyncio.run(reach())
    except BrokerError as error:
        return str(error)
    return ""


def _runtime(environment: Environment, broker: Broker) -> dict[str, Any]:
    """Return what a server that is started here would say in its first line, as far as it is known."""
    return {
        "transport": {
            "hubbub serve": NATIVE,
            "uvicorn --ws hubbub:Protocol": NATIVE,
            "any other server": PORTABLE,
        },
        "loop": "asyncio" if "uvloop" in environment.uncompiled else "uvloop",
        "compiled": [name for name in PARTS if name not in environment.uncompiled],
        "broker": broker_name(broker),
        "workers": environment.workers,
    }


def _text(report: Mapping[str, Any]) -> str:
    table = [("setting", "value", "unit", "from")]
    for row in report["settings"]:
        unit = "" if row["value"] is None or isinstance(row["value"], (str, bool)) else row["unit"]
        table.append((row["name"], shown(row["value"]), unit, row["source"]))
    widths = [max(len(cells[column]) for cells in table) for column in range(3)]
    lines = [str(report["hub"]), ""]
    for name, value, unit, source in table:
        lines.append(
            f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {source}".rstrip()
        )
    lines += ["", *_runtime_lines(report["runtime"]), ""]
    lines += [f"{one['level']}: {one['about']}: {one['text']}" for one in report["dangers"]]
    return "\n".join(lines)


def _runtime_lines(runtime: Mapping[str, Any]) -> Iterator[str]:
    ways = ", ".join(f"{transport} under {way}" for way, transport in runtime["transport"].items())
    yield f"  transport   {ways}"
    yield f"  event loop  {runtime['loop']}, if the server is not told otherwise"
    yield f"  compiled    parts of {', '.join(runtime['compiled']) or 'nothing'}"
    yield f"  broker      {runtime['broker']}"
    yield f"  workers     {runtime['workers']}, if the server is not told otherwise"
