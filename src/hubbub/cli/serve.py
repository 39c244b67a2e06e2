"""`hubbub serve` and `hubbub demo`: uvicorn, set up for a hub.

What must not live here: finding the application (`target`) and what the settings are (`settings`;
the flags are generated from it). Every failure before the first request is one sentence.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import math
import os
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..settings import Settings, rows
from ..settings_environment import OPTIONS
from ..settings_values import shown
from .sockets import BACKLOG, address_of, open_sockets
from .target import (
    API_APP,
    CENTRIFUGE_API_APP,
    CENTRIFUGE_APP,
    DEFAULT_APP,
    Target,
    load,
    read_target,
    require_module,
    use_folder,
)

if TYPE_CHECKING:
    import uvicorn

F = TypeVar("F", bound=Callable[..., Any])
DEMO_APP = "hubbub.demo.app:app"
DEMO_PORT = 8080
LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
GRACE_S = 2
"""How much longer than shutdown_timeout_s uvicorn waits before it gives up on a shutdown."""

_SETTINGS = {row.name: row for row in rows()}


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a server is told, besides the settings of its hubs."""

    target: Target
    folder: str = "."
    is_factory: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None
    fd: int | None = None
    workers: int | None = None
    reload: bool = False
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    proxy_headers: bool = True
    forwarded_allow_ips: str | None = None
    metrics: str | None = None
    log_level: str = "info"

    @property
    def process_count(self) -> int:
        """How many processes serve, as uvicorn counts them: one, where it is started anew by itself."""
        if self.reload:
            return 1
        text = os.environ.get("WEB_CONCURRENCY", "").strip() or "1"
        if self.workers is None and not text.isdecimal():
            raise click.ClickException(f"WEB_CONCURRENCY={text!r}: must be a number of processes")
        return self.workers or int(text)


def settings_flags(function: F) -> F:
    """Give a command one option for each setting; they arrive as keywords, None when not given."""
    for row in reversed(_SETTINGS.values()):
        none = f" none: {row.none}." if row.none else ""
        choices = f" One of {', '.join(row.words)}." if row.choices else ""
        text = f"{row.doc}{choices}{none} [default: {shown(row.default)}]"
        option = click.option(row.flag, row.name, metavar=row.unit.upper(), help=text)
        function = option(function)
    return function


def apply_settings(given: dict[str, str | None]) -> Settings:
    """Put the flags into the environment, where the application and all workers find them.

    One that is empty counts as not given, as an empty variable does.
    Returns the settings that follow; raises `SettingsError` that names the flag.
    """
    rows = {_SETTINGS[name]: text for name, text in given.items() if text and text.strip()}
    flags = {row.env: text for row, text in rows.items()}
    OPTIONS.update({row.env: (row.flag, text) for row, text in rows.items()})
    settings = Settings.load({**os.environ, **flags})
    os.environ.update(flags)
    return settings


class _ServeCommand(click.Command):
    """A command whose help keeps the hub's settings apart from the server's options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        server: list[tuple[str, str]] = []
        hub: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                (hub if param.name in _SETTINGS else server).append(record)
        with formatter.section("Server"):
            formatter.write_dl(server)
        with formatter.section("Settings of the hub"):
            formatter.write_text(
                "They go into the environment as HUBBUB_… before the application is imported, so "
                "that all workers find them. A keyword in the application's code wins over them."
            )
            formatter.write_dl(hub)


@click.command(cls=_ServeCommand)
@click.argument("app", required=False)
@click.option(
    "--centrifuge",
    is_flag=True,
    help="Without APP: let the Centrifuge SDKs connect at /connection/websocket, beside /ws.",
)
@click.option(
    "--api",
    is_flag=True,
    help="Without APP: have the HTTP API at /api, for the key in the variable API_KEY or those of --api-keys-file.",
)
@click.option("--app-dir", default=".", show_default=True, help="Where the module of APP is.")
@click.option("--factory", is_flag=True, help="APP is a function that returns the application.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes a free one.",
)
@click.option("--uds", help="Listen on a Unix domain socket at this path instead.")
@click.option(
    "--fd",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="Take connections from a socket that is open already, as systemd hands it over: 3.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="How many processes serve. [default: $WEB_CONCURRENCY, else 1]",
)
@click.option("--reload", is_flag=True, help="Restart when a Python file of --app-dir changes.")
@click.option("--ssl-certfile", type=click.Path(exists=True, dir_okay=False), help="For wss://.")
@click.option("--ssl-keyfile", type=click.Path(exists=True, dir_okay=False), help="Its key.")
@click.option(
    "--proxy-headers/--no-proxy-headers",
    default=True,
    show_default=True,
    help="Believe X-Forwarded-For and X-Forwarded-Proto of the proxies that are trusted.",
)
@click.option(
    "--forwarded-allow-ips",
    help="The proxies that are trusted, with commas; '*' for all. [default: "
    "$FORWARDED_ALLOW_IPS, else 127.0.0.1]",
)
@click.option(
    "--metrics",
    metavar="[HOST:]PORT",
    help="Answer /metrics (Prometheus), /readyz and /healthz on this port, of 127.0.0.1 without HOST. "
    "Each of several workers takes the first free one from there on.",
)
@click.option("--log-level", default="info", show_default=True, type=click.Choice(LOG_LEVELS))
@settings_flags
def serve(
    app: str | None, centrifuge: bool, api: bool, app_dir: str, factory: bool, **options: Any
) -> None:
    """Serve APP, with uvicorn set up for a hub.

    APP is a module and an attribute, such as  app:app ; without APP a ready application runs that
    passes every message at /ws on to everybody, unless rooms have rules.
    """
    if centrifuge and app is not None:
        route = 'hub.router("/connection/websocket", dialect="centrifuge")'
        raise click.UsageError(f"--centrifuge is for the ready application; in APP write  {route}")
    if api and app is not None:
        raise click.UsageError('--api is for the ready application; in APP write  hub.api("/api")')
    given = {name: options.pop(name) for name in _SETTINGS}
    settings = apply_settings(given)
    ready = CENTRIFUGE_APP if centrifuge else DEFAULT_APP
    if api and settings.api_keys_file is None:
        _require_key()
        ready = CENTRIFUGE_API_APP if centrifuge else API_APP
    serving = Serving(
        target=read_target(app or ready), folder=app_dir, is_factory=factory, **options
    )
    run(serving, settings)


def _require_key() -> None:
    """Raise `click.UsageError` if the variable API_KEY has no key: every worker reads it there."""
    from ..asgi.api_keys import KEY_VARIABLE, ApiKey

    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise click.UsageError(
            f"--api needs a key: put one into the variable {KEY_VARIABLE}, or name a file with --api-keys-file"
        )
    try:
        ApiKey(key)
    except ValueError as error:
        raise click.UsageError(f"the variable {KEY_VARIABLE}: {error}") from None


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=DEMO_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes a free one.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="How many processes serve; several share a local server. [default: $WEB_CONCURRENCY, else 1]",
)
@click.option("--log-level", default="warning", show_default=True, type=click.Choice(LOG_LEVELS))
def demo(host: str, port: int, workers: int | None, log_level: str) -> None:
    """Serve the demo application: chat, channels, notifications, live data, a game, a monitor."""
    settings = apply_settings({})
    serving = Serving(
        target=read_target(DEMO_APP), host=host, port=port, workers=workers, log_level=log_level
    )
    run(serving, settings, path="/websocket")


def run(serving: Serving, settings: Settings, path: str = "") -> None:
    """Serve until a signal says to stop. `path` is added to the address that is shown."""
    require_uvloop()
    if serving.metrics:
        require_metrics(serving)
    warn_about(serving)
    use_folder(serving.folder)
    sockets = open_sockets(serving)
    try:
        hubs = _prepare(serving)
        share_a_broker(serving, settings, sockets, hubs)
        shutdown_timeout_s = max(each.shutdown_timeout_s for each in (settings, *hubs))
        _serve(serving, sockets, address_of(serving, sockets) + path, shutdown_timeout_s)
    except KeyboardInterrupt:
        pass
    except ssl.SSLError as error:
        raise click.ClickException(f"the certificate or its key is no good: {error}") from error
    except SystemExit as error:
        if error.code:
            raise click.ClickException("the server did not start; see the lines above") from error
    finally:
        for sock in sockets or ():
            sock.close()
        if serving.uds and os.path.exists(serving.uds):
            os.remove(serving.uds)


def share_a_broker(
    serving: Serving,
    settings: Settings,
    sockets: Sequence[socket.socket] | None,
    hubs: Sequence[Settings],
) -> None:
    """Have several workers share a local server, where nobody has said what connects them, or nothing.

    The same application at the same address means the same one, one after another. `hubs` are the settings of the
    application's hubs.
    """
    from ..brokers.local_server import has_local

    is_chosen = bool(os.environ.get(_SETTINGS["broker"].env, "").strip())
    if serving.process_count == 1 or settings.workers_ok is True or is_chosen:
        return
    if not has_local():
        warn("several workers share nothing without a broker: run  pip install 'hubbub[local]'")
        return
    if len({each.broker_prefix for each in hubs}) < len(hubs):
        warn(
            "several workers share nothing: the application has several hubs, which would hear one another. "
            'Give each a Hub(broker_prefix="…") of its own'
        )
        return
    address = serving.uds or (sockets[0].getsockname() if sockets else serving.fd)
    what = f"{os.path.abspath(serving.folder)} {serving.target} {address}"
    url = f"local://serve-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
    os.environ[_SETTINGS["broker"].env] = url
    click.echo(f"{serving.process_count} workers share a local server, {url}", err=True)


def _prepare(serving: Serving) -> list[Settings]:
    """Import the application, for its errors' sake; return the settings of its hubs."""
    if serving.reload:
        # The reloader's child imports it, and waits for a change when that fails.
        require_module(serving.target, serving.folder)
        return []
    return [hub.settings for hub in load(serving.target, serving.folder).hubs.values()]


def require_uvloop() -> None:
    """Raise where uvloop is missing and belongs to the installation, as the package declares it.

    Without it everything is slower, and nothing else would say so.
    """
    has_one = sys.platform != "win32" and sys.implementation.name == "cpython"
    if has_one and importlib.util.find_spec("uvloop") is None:
        raise click.ClickException("uvloop is not installed: run  pip install uvloop")


def require_metrics(serving: Serving) -> None:
    """Raise where `--metrics` names no port, or one that is taken, or what it needs is not installed."""
    from .worker import read_inside, require_free, require_metrics

    inside = read_inside(serving.metrics or "", serving.process_count)
    require_metrics()
    require_free(inside, serving.process_count)


def warn_about(serving: Serving) -> None:
    """Say what should be known of this machine and these options."""
    trusted = serving.forwarded_allow_ips or ""
    if "*" in trusted.split(",") and not serving.uds:
        warn(
            "--forwarded-allow-ips '*': whoever reaches this server without the proxy chooses the "
            "address that he has; name the proxies"
        )
    if serving.log_level == "trace":
        warn("--log-level trace: uvicorn writes queries into the log, and tokens that are in them")


def warn(sentence: str) -> None:
    """Say what should be known and stops nothing."""
    click.echo(f"Warning: {sentence}", err=True)


def make_config(serving: Serving, shutdown_timeout_s: float) -> uvicorn.Config:
    """Return uvicorn's configuration for a hub."""
    from .worker import WorkerConfig, read_inside

    config = WorkerConfig(
        str(serving.target),
        factory=serving.is_factory,
        host=serving.host,
        port=serving.port,
        uds=serving.uds,
        http="hubbub:HttpProtocol",
        ws="hubbub:Protocol",
        ws_per_message_deflate=False,
        loop="auto",
        lifespan="auto",
        reload=serving.reload,
        reload_dirs=[serving.folder] if serving.reload else None,
        workers=serving.process_count,
        ssl_certfile=serving.ssl_certfile,
        ssl_keyfile=serving.ssl_keyfile,
        proxy_headers=serving.proxy_headers,
        forwarded_allow_ips=serving.forwarded_allow_ips,
        log_config=_log_config(serving.log_level),
        log_level=serving.log_level,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(shutdown_timeout_s) + GRACE_S,
    )
    if serving.metrics:
        config.inside = read_inside(serving.metrics, serving.process_count)
    return config


def _log_config(level: str) -> dict[str, Any]:
    """Return uvicorn's logging with the hub's own log lines in it."""
    from uvicorn.config import LOGGING_CONFIG

    config = copy.deepcopy(LOGGING_CONFIG)
    name = "DEBUG" if level == "trace" else level.upper()
    config["loggers"]["hubbub"] = {"handlers": ["default"], "level": name, "propagate": False}
    return config


def _serve(
    serving: Serving,
    sockets: list[socket.socket] | None,
    address: str,
    shutdown_timeout_s: float,
) -> None:
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from .reload import Reloader

    class Server(uvicorn.Server):
        """uvicorn's server, which says where it listens when it does."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _announce(address)

    config = make_config(serving, shutdown_timeout_s)
    server = Server(config)
    if not config.should_reload and config.workers == 1:
        server.run(sockets)
        if not server.started:
            raise SystemExit(1)
        return
    # The supervisors want what listens already; only a Unix socket does not yet.
    several = sockets or [config.bind_socket()]
    for sock in several:
        sock.listen(BACKLOG)
        sock.set_inheritable(True)
    _announce(address)
    if config.should_reload:
        Reloader(config, target=uvicorn.Server(config).run, sockets=several).run()
    else:
        supervisor = Multiprocess(config, sockets=several)
        supervisor.run()
        if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
            raise SystemExit(1)


def _announce(address: str) -> None:
    click.echo(f"Hubbub is at {address} (Ctrl-C ends it)")
