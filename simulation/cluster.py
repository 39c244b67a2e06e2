"""A cluster at work: publications go from a worker to a broker and from there to the workers with members.

A process does in one turn all that waits for it, as an event loop does: so the cost of a publication falls with the
load. Not here: what is asked of a cluster (`checks.py`, `plan.py`), clients that come back (`storm.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from .costs import Cost, Costs
from .engine import Core, Link, Simulation


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to a room, and when it was published."""

    room: int
    at_s: float


Turn = Callable[[list[Publication]], float]
Then = Callable[[list[Publication]], None]


class Process:
    """A process on a core: what waits for it is done in its next turn, all of it."""

    def __init__(self, core: Core, cost: Turn, then: Then) -> None:
        self._core = core
        self._cost = cost
        self._then = then
        self._waiting: list[Publication] = []
        self._taken: list[Publication] = []
        self._is_due = False
        self.turns = 0

    def take(self, publications: Iterable[Publication]) -> None:
        """Have publications handled."""
        self._waiting += publications
        self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            self._core.do(self._begin, self._end)

    def _begin(self) -> float:
        self._taken, self._waiting = self._waiting, []
        self.turns += 1
        return self._cost(self._taken)

    def _end(self) -> None:
        self._is_due = False
        self._then(self._taken)
        self._ask_for_turn()


def turn_of(cost: Cost, publications: Sequence[Publication]) -> float:
    """Return what a turn costs that has these publications."""
    return cost.of(len({each.room for each in publications}), len(publications))


@dataclass
class Shape:
    """What stands where: `workers` and `brokers`, all on one core or each on one of its own.

    Several brokers share the rooms, as several servers and a cluster do. `members` is how many clients a room has at
    each worker. `bytes_per_s` is the bandwidth of a broker's machine (None: it is not looked at).
    """

    workers: int
    brokers: int = 1
    members: int = 1
    is_one_core: bool = False
    bytes_per_s: float | None = None
    message_bytes: int = 128


@dataclass
class Cluster:
    """Workers and brokers that run. `arrived` is called with what a worker has written in one turn, and its number."""

    simulation: Simulation
    costs: Costs
    shape: Shape
    arrived: Callable[[Sequence[Publication], int], None]
    cores: list[Core] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = 1 if self.shape.is_one_core else self.shape.workers + self.shape.brokers
        self.cores = [Core(self.simulation) for _ in range(count)]
        self._workers = [self._worker(number) for number in range(self.shape.workers)]
        self._brokers = [self._broker(number) for number in range(self.shape.brokers)]

    def publish(self, worker: int, publications: Sequence[Publication]) -> None:
        """Have a client of a worker publish, all in one write."""
        self._workers[worker][0].take(publications)

    def _core(self, number: int) -> Core:
        return self.cores[0 if self.shape.is_one_core else number]

    def _worker(self, number: int) -> tuple[Process, Process]:
        costs, members = self.costs, self.shape.members
        core = self._core(number)

        def receive(publications: list[Publication]) -> float:
            rooms = len({each.room for each in publications})
            writes = rooms * members * costs.write.run_s
            copies = len(publications) * members * costs.write.each_s
            return turn_of(costs.receive, publications) + writes + copies

        def write(publications: list[Publication]) -> None:
            self.arrived(publications, number)

        publisher = Process(core, lambda taken: turn_of(costs.publish, taken), self._send)
        return publisher, Process(core, receive, write)

    def _broker(self, number: int) -> tuple[Process, Link | None]:
        shape, costs = self.shape, self.costs
        speed = shape.bytes_per_s
        link = None if speed is None else Link(self.simulation, speed)

        def serve(publications: list[Publication]) -> float:
            more = shape.workers * turn_of(costs.serve_worker, publications)
            return turn_of(costs.serve, publications) + more

        def spread(publications: list[Publication]) -> None:
            for _, receiver in self._workers:
                if link is None:
                    receiver.take(publications)
                    continue
                size = shape.message_bytes * len(publications)
                link.send(size, lambda to=receiver: to.take(publications))  # type: ignore[misc]

        return Process(self._core(shape.workers + number), serve, spread), link

    def _send(self, publications: list[Publication]) -> None:
        count = len(self._brokers)
        for number, (broker, _) in enumerate(self._brokers):
            broker.take([each for each in publications if each.room % count == number])


def throughput(costs: Costs, shape: Shape, rooms: int, burst: int, rounds: int = 60) -> float:
    """Return how many publications are done in a second of work of all cores together.

    Each room has the next burst, published at its own worker, when its clients have read the last. They are all in one
    process with a core of its own, as those of the benchmark are.
    """
    simulation = Simulation()
    clients = Core(simulation)
    left, counted = [0] * rooms, 0

    def arrived(publications: Sequence[Publication], worker: int) -> None:
        for room, count in Counter(each.room for each in publications).items():
            clients.do(partial(costs.read.of, 1, count), partial(read, room, count))

    def read(room: int, count: int) -> None:
        nonlocal counted
        left[room] -= count
        if not left[room]:
            counted += burst
            if counted < rooms * burst * rounds:
                begin(room)

    def begin(room: int) -> None:
        left[room] = burst * shape.workers
        some = [Publication(room, simulation.now_s) for _ in range(burst)]
        cluster.publish(room % shape.workers, some)

    cluster = Cluster(simulation, costs, shape, arrived)
    for room in range(rooms):
        begin(room)
    simulation.run()
    return counted / sum(core.busy_s for core in cluster.cores)


def lag(costs: Costs, shape: Shape, rooms: int, rate: float, seconds: float = 2.0) -> list[float]:
    """Return how long publications took from one worker to another, in seconds, sorted; `rate` is of all rooms."""
    simulation = Simulation()
    lags: list[float] = []
    path_s = costs.path_after(1 / rate)

    def arrived(publications: Sequence[Publication], worker: int) -> None:
        if worker:
            lags.extend(simulation.now_s - each.at_s + path_s for each in publications)

    cluster = Cluster(simulation, costs, shape, arrived)
    for number in range(int(rate * seconds)):

        def publish(room: int = number % rooms) -> None:
            cluster.publish(0, [Publication(room, simulation.now_s)])

        simulation.after(number / rate, publish)
    simulation.run()
    return sorted(lags)
