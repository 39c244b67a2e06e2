"""A fleet: workers that share a broker, clients of rooms that remember, publishers in other processes; and a verdict.

What must not live here: what is done to it (`fault_broker.py`, `fault_nats.py`, `fault_sentinel.py`, `fault_worker.py`), and which
servers a broker has (`brokers.py`): whatever they are, a `BrokerServer` has a URL. How they are hurt only who hurts them knows.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from hubbub.brokers.unanswered import WAIT_S
from hubbub.hub.presence import LOOK_S
from tcp_proxy import Proxy

from .room_client import LONGEST_AGAIN_S, RoomClient
from .scenario import ROOT, Outcome, Scale, ServerProcess

SOME = 4
"""How many messages everybody is to have of each publisher before the fault, and how many after it."""
PATIENCE_S = 60.0
"""How long anything is waited for, before a scenario is given up."""
WAITED_S = WAIT_S + LONGEST_AGAIN_S
"""What may be waited after a fault of any kind: by a publisher for its receipt, before it tries again, and by a client before it asks
for its room again. It is no time of a machine, but the product's own and the clients'."""
TIMES = 2
"""How many times what is waited it may take until everybody is whole: a try may fail, and the next one not."""
RULES = [{"pattern": "log:*", "history": 10_000, "presence": True, "leave_grace_s": 0}]
HASTE = {
    "hubbub.brokers.reconnecting.SILENCE_S": 1.0,
    "hubbub.brokers.reconnecting.LONGEST_DELAY_S": 0.1,
    "hubbub.brokers.valkey_link.MARK_S": 0.1,
    "hubbub.brokers.nats.WATCH_S": 0.1,
    "hubbub.hub.rules.LEASE_S": 3.0,
    "hubbub.hub.presence_roll.RENEW_S": 1.0,
    "hubbub.hub.presence.LOOK_S": 0.1,
}
"""What workers wait for in seconds, at short scale."""
LEASES = {"hubbub.hub.rules.LEASE_S": 20.0, "hubbub.hub.presence_roll.RENEW_S": 20.0 / 3}
"""At full scale leases are shorter than a worker stands still."""

USER, PASSWORD = "default", "held-by-each-process"
"""What each URL of a fleet has. Servers that ask for none take any; and no log may have it."""

_runs = count(1)


class BrokerServer(Protocol):
    """A broker's server, or all of them."""

    @property
    def url(self) -> str: ...
    def stop(self) -> None: ...


class Restarted(BrokerServer, Protocol):
    """One that is killed, and started again with what it has kept."""

    def kill(self) -> None: ...
    def restart(self) -> None: ...


S_co = TypeVar("S_co", bound=BrokerServer, covariant=True)


@dataclass(frozen=True)
class Size:
    """How many of everything. Each room has two publishers; `per_second` is how often each publishes.

    `slack_s` is how much longer it may take until clients are elsewhere than what they wait: so many are let in by few processes,
    on a machine that has other work too.
    """

    workers: int
    clients: int
    publishers: int
    per_second: float
    processes: int
    slack_s: float
    constants: Mapping[str, float]

    @property
    def shown(self) -> str:
        """What the page says of it."""
        return f"{self.clients} clients, {self.publishers} publishers, {self.workers} workers"

    @property
    def struck_out_s(self) -> float:
        """Within how many seconds those of a worker that has gone are.

        Their lease ends; another worker strikes out whose lease has ended when it renews its own, and looks each
        `LOOK_S` whether it is to. One renewal more is what both have for their work.
        """
        lease_s = self.constants["hubbub.hub.rules.LEASE_S"]
        renew_s = self.constants["hubbub.hub.presence_roll.RENEW_S"]
        return lease_s + 2 * renew_s + self.constants.get("hubbub.hub.presence.LOOK_S", LOOK_S)


def size_of(scale: Scale) -> Size:
    """Return the size of a fleet."""
    return scale.pick(Size(2, 24, 4, 20.0, 1, 5.0, HASTE), Size(3, 500, 20, 5.0, 4, 15.0, LEASES))


class PublisherProcess:
    """One process of publishers; see `publisher.py`."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stress.publisher", url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    async def read(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        return await asyncio.to_thread(self._process.stdout.readline)

    def say(self, told: Any) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def with_login(url: str) -> str:
    """Return a URL with the name and the password that a fleet has."""
    place = urlsplit(url)
    return place._replace(netloc=f"{USER}:{PASSWORD}@{place.netloc}").geturl()


def way_to(url: str) -> tuple[Proxy | None, str]:
    """Return a way to a server, and its URL by that way. There is none where the URL names several."""
    place = urlsplit(url)
    if "," in place.netloc:
        return None, url
    assert place.hostname is not None
    assert place.port is not None
    way = Proxy(place.hostname, place.port)
    return way, place._replace(netloc=f"127.0.0.1:{way.port}").geturl()


class Fleet(Generic[S_co]):
    """Workers and publishers on one broker. The first worker's way to it can be cut, if there is one: `way`."""

    def __init__(self, server: S_co, scale: Scale) -> None:
        self._server, self.scale, self.size = server, scale, size_of(scale)
        self.url = with_login(server.url)
        self._way, near = way_to(server.url)
        near = with_login(near)
        self.workers = [self.worker(near if each == 0 else "") for each in range(self.size.workers)]
        self.publishers: list[PublisherProcess] = []

    @property
    def server(self) -> S_co:
        """The broker's server."""
        return self._server

    @property
    def way(self) -> Proxy:
        """The first worker's way there."""
        assert self._way is not None
        return self._way

    def worker(self, url: str = "", **constants: object) -> ServerProcess:
        """Return one more worker, which is to be started."""
        settings = {
            "broker": url or self.url,
            "drain_s": self.scale.pick(0.5, 5.0),
            "come_back_s": 0.1,
        }
        told = {"rules": RULES, "settings": settings, "interval_s": 3600.0, "log_level": "DEBUG"}
        return ServerProcess({**told, "constants": {**self.size.constants, **constants}})

    async def start(self) -> None:
        """Start all of it."""
        if self._way is not None:
            await self._way.start()
        await asyncio.gather(*(worker.start() for worker in self.workers))
        self.publishers = [PublisherProcess(self.url) for _ in range(self.size.processes)]
        for process in self.publishers:
            assert await process.read() == "ready\n"

    async def end(self) -> None:
        """End all of it, but the broker."""
        for process in self.publishers:
            process.end()
        for worker in self.workers:
            worker.end()
        if self._way is not None:
            await self._way.stop()

    async def all_say(self, *states: str) -> None:
        """Wait until the broker is in one of these states, as all workers see it."""
        for worker in self.workers:
            await worker.until(lambda facts: facts["stats"]["broker_state"] in states, states[0])


def note_within(outcome: Outcome, name: str, since: float, most_s: float) -> None:
    """Note how long after `since` this is, of several by one name the longest; more than `most_s` is a fault."""
    took_s = round(time.time() - since, 2)
    outcome.found[name] = max(took_s, outcome.found.get(name, 0.0))
    outcome.expect(took_s <= most_s, f"{name}: {took_s:g}, and {most_s:g} at most")


def note_whole(outcome: Outcome, whole_s: float, waited_s: float) -> None:
    """Note after how long all were whole; longer than `TIMES` what is waited (`waited_s` of it after this fault) is a fault."""
    outcome.found["whole after, s"] = whole_s
    most_s = TIMES * (WAITED_S + waited_s)
    outcome.expect(0 <= whole_s <= most_s, f"whole after, s: {whole_s:g}, and {most_s:g} at most")


class Load:
    """Clients and publishers at their work, and what comes of it."""

    def __init__(self, fleet: Fleet[BrokerServer], outcome: Outcome) -> None:
        self.fleet, self.outcome = fleet, outcome
        self.rooms: dict[int, str] = {}
        """The room of each publisher."""
        self.mended_at = 0.0
        self.waited_s = 0.0
        run, size = next(_runs), fleet.size
        names = [f"log:{run}:{number}" for number in range(size.publishers // 2)]
        self.rooms = {each: names[each % len(names)] for each in range(size.publishers)}
        ports = [worker.port for worker in fleet.workers]
        self.clients: list[RoomClient] = []
        for number in range(size.clients):
            turn, place = divmod(number, len(names))  # each room has clients at each worker
            publishers = [each for each in self.rooms if self.rooms[each] == names[place]]
            self.clients.append(RoomClient(names[place], ports, turn, publishers))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Have all clients in their rooms, and all publishers publish."""
        self._tasks = [asyncio.create_task(client.run()) for client in self.clients]
        await self.until(lambda client: client.is_in, "all in their rooms")
        processes = self.fleet.publishers
        for number, process in enumerate(processes):
            rooms = {
                each: self.rooms[each] for each in self.rooms if each % len(processes) == number
            }
            process.say({"rooms": rooms, "per_second": self.fleet.size.per_second})
        await self.until(lambda client: client.account.has_all(self._first(client)), "the first")

    def _first(self, client: RoomClient) -> dict[int, int]:
        return dict.fromkeys(client.publishers, SOME)

    async def until(
        self, holds: Callable[[RoomClient], bool], what: str, of: float = PATIENCE_S
    ) -> None:
        """Wait until something holds of all clients. Raises `TimeoutError`."""
        deadline = time.monotonic() + of
        while waiting := [client for client in self.clients if not holds(client)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} clients waited in vain for {what}")
            await asyncio.sleep(0.01)

    def mended(self, waited_s: float = 0.0) -> None:
        """The fault is over: from now on it counts until everybody has what is published.

        `waited_s` is what is waited for after this fault, beside `WAITED_S`.
        """
        self.mended_at = time.time()
        self.waited_s = waited_s
        for client in self.clients:
            client.mark, client.whole_at, client.since = self.mended_at, 0.0, 0

    async def finish(self) -> None:
        """Wait until everybody is whole, end the publishers, and fill the outcome in."""
        try:
            await self.until(
                lambda client: client.since >= SOME, "what was published after the fault"
            )
        except TimeoutError as error:
            self.outcome.faults.append(str(error))
        reports: dict[int, dict[str, Any]] = {}
        for process in self.fleet.publishers:
            process.say(None)
            told = json.loads(await asyncio.wait_for(process.read(), PATIENCE_S))
            reports |= {int(number): report for number, report in told.items()}
        published = {number: report["count"] for number, report in reports.items()}
        try:
            await self.until(
                lambda one: one.account.has_all(self._of(one, published)), "the last messages"
            )
        except TimeoutError as error:
            self.outcome.faults.append(str(error))
        self._judge(published, list(reports.values()))
        self.logs_nothing_of(PASSWORD)

    def _of(self, client: RoomClient, published: Mapping[int, int]) -> dict[int, int]:
        return {each: published[each] for each in client.publishers}

    def _judge(self, published: Mapping[int, int], reports: Sequence[Mapping[str, Any]]) -> None:
        outcome, clients = self.outcome, self.clients
        accounts = [client.account for client in clients]
        orders: dict[str, list[Any]] = {}
        untold = [client for client in clients if not client.account.told]
        for client in untold:
            orders.setdefault(client.room, client.account.order)
        differ = sum(client.account.order != orders[client.room] for client in untold)
        outcome.expected = sum(sum(self._of(client, published).values()) for client in clients)
        outcome.arrived = sum(len(account.order) for account in accounts)
        outcome.found |= {
            "published": sum(published.values()),
            "lost": sum(each.account.lost(self._of(each, published)) for each in clients),
            "twice": sum(account.twice for account in accounts),
            "out of order": sum(account.late for account in accounts) + differ,
            "disconnected": sum(client.disconnected > 0 for client in clients),
            "told": sum(account.told > 0 for account in accounts),
            "missed and told": sum(account.missed for account in accounts),
            "clients that recovered": sum(client.recovered > 0 for client in clients),
            "refused": sum(report["refused"] for report in reports),
            "longest publication, s": max(report["longest_s"] for report in reports),
        }
        whole_at = max(client.whole_at for client in clients)
        note_whole(outcome, round(whole_at - self.mended_at, 2), self.waited_s)
        for name in ("lost", "twice", "out of order"):
            outcome.expect(not outcome.found[name], f"{outcome.found[name]} {name}")

    def keeps_all(self) -> None:
        """Nobody was to be disconnected, and nobody told that something is missing."""
        for name in ("disconnected", "told"):
            self.outcome.expect(not self.outcome.found[name], f"{self.outcome.found[name]} {name}")

    def keeps_connections(self) -> None:
        """Nobody was to be disconnected."""
        self._had_none("disconnected", "clients were disconnected")

    def logs_nothing_of(self, password: str) -> None:
        """No worker was to write a password to its log."""
        logs = [line for worker in self.fleet.workers for line in worker.log()]
        self.outcome.expect(bool(logs), "the workers have no logs")
        self.outcome.expect(not any(password in line for line in logs), "a password is in a log")

    def recovers_all(self) -> None:
        """Nobody was to be told that something is missing."""
        self._had_none("told", "some could not recover")

    def _had_none(self, name: str, fault: str) -> None:
        self.outcome.expect(not self.outcome.found[name], fault)

    async def all_told(self, began: float) -> None:
        """Wait until all clients are told that something may be missing; note how long after `began` that was."""
        await self.until(lambda client: client.account.told > 0, "word of the new epoch")
        self.outcome.found["all told after, s"] = round(time.time() - began, 2)

    async def elsewhere(
        self, worker: ServerProcess, since: float, clients: Sequence[RoomClient] | None = None
    ) -> None:
        """Wait until these clients (None: all) are in their rooms at other workers than this one; note how long after
        `since` that was. It is to be no longer than their longest delay."""
        left = self.clients if clients is None else clients
        await self.until(
            lambda client: client not in left or (client.is_in and client.port != worker.port),
            "another worker",
        )
        most_s = LONGEST_AGAIN_S + self.fleet.size.slack_s
        note_within(self.outcome, "elsewhere after, s", since, most_s)

    async def stop(self) -> None:
        """Have the clients leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def all_present(
        self,
        worker: ServerProcess,
        since: float,
        *,
        without: ServerProcess | None = None,
        name: str = "presence right after, s",
    ) -> None:
        """Wait until a worker sees in each room those that are there (but for those of a worker that stands still),
        and nobody else; note by a name how long after `since` that was. It is to be within `struck_out_s`."""
        deadline = time.time() + PATIENCE_S
        left_out = None if without is None else without.port
        for room in dict.fromkeys(self.rooms.values()):
            members = [client for client in self.clients if client.room == room]
            while (await worker.ask(f"/present?room={room}"))["clients"] != sum(
                client.port != left_out for client in members
            ):
                if time.time() > deadline:
                    raise TimeoutError(f"not all are seen in {room}")
                await asyncio.sleep(0.05)
        note_within(self.outcome, name, since, self.fleet.size.struck_out_s)


@asynccontextmanager
async def under_load(fleet: Fleet[BrokerServer], title: str, fault: str) -> AsyncIterator[Load]:
    """Have clients and publishers at work around the body, which hurts the fleet; then fill in the outcome."""
    outcome = Outcome(title, "native", f"{fleet.size.shown}; {fault}")
    await fleet.all_say("up")
    load = Load(fleet, outcome)
    try:
        await load.start()
        yield load
        if not load.mended_at:
            load.mended()
        await load.finish()
    finally:
        await load.stop()
