"""The words of `docs/benchmarks.md`: what is counted, why so, and what the figures do not claim."""

from __future__ import annotations

from typing import Any

from .about import about_rows, commits, dates, differ

COLUMNS = {
    "one": "one at a time",
    "burst64": "bursts of 64",
    "rooms": "rooms of 10",
    "echo": "echo",
    "memory": "idle client",
    "handshakes": "handshakes",
}

OPENING = """\
# Benchmarks

`make bench` writes this page: it builds and installs every server named here, runs them in turn,
and puts the figures of the machine it ran on into the tables. The figures below are of {date},
commit `{commit}`; each row says how many rounds it had.

The first four columns are deliveries per second of CPU time that the server used, in millions;
a delivery is one message that one client has received and checked. In brackets: how many times
better Hubbub is, as the median over the pairs of runs.
"""

QUICK = """\
> **This was a quick run:** one short round with fewer clients in some rows and fewer points in the
> plots, in which one run of ours stands for all pairs. It shows that everything works; it is too
> noisy to quote.
"""

MIXED = """\
The rows were not all measured together: each says when it was, and where that was a quick run."""

READING = """\
Memory is what the server's RSS grew by for each idle client. Handshakes are in thousands per second
of the server's CPU time.
"""

LIMIT = "bare system calls"

GOALS = """\
What the project asks of itself, with everything on. Ratios are medians over the pairs of a row. The
last column is what the kernel program reached that joins as Hubbub does (one `send()` for each client
and turn) and does nothing else: where it misses a goal too, this machine's kernel does not allow it."""

GROWTH = """\
Both axes of the plots are logarithmic. Medians of the runs; each point is a server of its own."""

ROOMS = """\
What history, recovery and presence cost, each beside the same without it, in the same round. Measured on
{date} at commit `{commit}`. Where a figure is of one turn of the event loop, its clients are in memory:
all of the hub is at work but the system calls, which would hide what is compared. Each row checks what its
clients have got, and a run in which anything was lost or came twice has no figures."""

BROKERS = """\
What connects workers costs, by CPU time. All workers, the broker's server and nothing else share one core, the generator
has the other; "a second of the core" is one of CPU time, of workers and server together. Measured on {date} at
commit `{commit}`. Every client of a room gets every message once, in order, or a row has no figures; of others it is
counted what was overtaken. What this means for many machines says the page [Scaling](scaling.md)."""

ROOMS_BUSY = """\
**The machine was shared:** its load average before was {load}, and others were at work on its two cores.
Ratios in memory are of CPU time, by turns, and stand. Over sockets the spread says how far a ratio can be
believed: where it is wider than what is asked, a single "no" or "yes" says little. Times and holds are longer
than they would be alone."""

ROOM_PEERS = """\
**Others.** Of the peers above, Django Channels and python-socketio keep no history of a group or room and
recover nothing, so there is no row to put beside these; their figures of plain rooms are above. Socket.IO for
Node.js can give back what a client missed for a while (`connectionStateRecovery`); that was not measured. Litestar, which is
no peer above, has [channels](https://docs.litestar.dev/2/usage/channels) that can keep a history, of which a new
connection can be sent the newest so many. They come without a position, so nobody can ask for what it has missed. The reference is
Centrifugo, whose protocol these clients speak. It was not run here. What its makers have published:

- Publishing to a channel with a history took its Redis engine 9.7 µs and without 0.56 µs, which is 0.06 of the
  speed; reading what was missed 6.2 µs; noting a member 3.6 µs (in the Go library, 128 at a time, with a
  Redis beside it: [its blog of 20 December 2022](https://centrifugal.dev/blog/2022/12/20/improving-redis-engine-performance)).
- Keeping a message in memory took 0.45 µs and reading what was missed 0.41 µs, no client included ([a change of
  its library, 5 April 2020](https://github.com/centrifugal/centrifuge/pull/93)).
- 100,000 subscriptions can be expected to be restored in several seconds with Redis, and faster in memory;
  10,000 connections take about 350 MB ([its author, 8 August 2019](https://github.com/centrifugal/centrifugo/issues/293)).
  In November 2025 he [knew of no newer figures](https://github.com/centrifugal/centrifugo/issues/1066).

These are of other machines, and of several cores; none of them has a client's handshake in it."""

ONE_AT_A_TIME = """\
### Why one message at a time is not 20 times python-socketio

The kernel alone takes more than a twentieth of what python-socketio takes. Where messages come one at a time there
is nothing to join: each client gets each message by a `write()` of its own. Measured on 2026-11-29 with four workers
and a Valkey server, 4 rounds by turns of 2 seconds, on two cores that were shared with others:

| CPU time of all workers, for a delivery | one room of 1,000 | 100 rooms of 12 |
| --- | ---: | ---: |
| Hubbub, median | 9.0 µs | 19.1 µs |
| python-socketio, median | 59.4 µs | 98.1 µs |
| Django Channels, median | 220 µs | 684 µs |
| python-socketio to Hubbub, median of the rounds (least – most) | 6.6 (5.2 – 9.1) | 5.2 (3.8 – 6.9) |
| Django Channels to Hubbub | 24 (21 – 30) | 35 (28 – 40) |
| `write()` to clients in the kernel, of Hubbub's, by its share below | 5.8 µs | 5.3 µs |
| so the most that any program could reach that writes to each client | 10 times | 19 times |

The last line leaves the program nothing else to do. With what the event loop takes (waking, reading, handing bytes to
`write()`) it is 8 and 13 times. Where the CPU time of Hubbub's workers goes, by a sampler on
their CPU time (SIGPROF, 796 and 724 samples; of a share of a tenth the error is 1.2):

| part of the workers' CPU time | one room of 1,000 | 100 rooms of 12 |
| --- | ---: | ---: |
| `write()` to clients, in the kernel | 64 % | 28 % |
| the way to it: the loop over clients, uvloop | 11 % | 6 % |
| the event loop: waking, reading, its own work | 6 % | 7 % |
| fan-out: who gets what, joining, headers | 3 % | 11 % |
| the message that came: envelope, room | 4 % | 9 % |
| reading it from Valkey: redis-py, streams, tasks | 4 % | 10 % |
| publishing: encoding, pipeline, command, its answer | 4 % | 19 % |
| receipts | 0 % | 4 % |
| reading what clients say, handlers | 1 % | 4 % |
| signs of life, looks at the server, the rest | 4 % | 2 % |

In small rooms each of the four workers has to read, decode and look up a message for three clients: there 14 of 19 µs
are not the kernel's `write()`, and no part is large. What was tried, each beside the one before in one run, by turns
(CPU time of a process that publishes one message at a time to one client in memory; 8 rounds, the best of 12 runs in each):

- *No task waits for what the server says:* it is parsed and acted on in the turn in which it comes. 0.80 of the time before
  (0.61 – 1.11). Over sockets, in the rooms of 12, 0.92 (0.72 – 1.16, 8 rounds); in the room of 1,000 nothing can be seen above the noise.
  Reading from Valkey went from 10 to 5 % there. It is not in use: it needs seven names of the client library and of asyncio that are
  not public, and a well-kept library is worth more than that part of small rooms.
- *One connection for both:* to publish by the connection that reads (RESP3), so that a publication comes back in the read that has
  its answer. 0.77 (0.59 – 0.85) where the first alone has 0.80. It is not in use either: for that little, a long pipeline would
  hold up what comes, and a lost connection would take both ways."""

SERVERS = """\
Each server is one file in [`benchmarks/peers`](../benchmarks/peers), written as its own
documentation says, with the same small protocol: what arrives goes to everybody, with `?room=N` to
that room, with `?mode=echo` back. Compression is off everywhere, `TCP_NODELAY` on. Where a server has
a way to prepare a message once for all clients, it is used or has a line of its own."""

METHOD = """\
## How it is measured

- **Two cores.** The server, with all its processes and threads, is pinned to one core, the load
  generator to another. A server is started for each visit: for one run, or for the four rows of
  small messages and the row of connections, one after another.
- **The generator** ([`benchmarks/load.c`](../benchmarks/load.c)) is one thread of C. It parses every
  frame, checks every byte of the message, and counts messages, not bytes. A message names its
  publisher, its number and the microsecond of its sending, so what is lost, doubled, late or out of
  order is known for each client. Where anything was lost, the row says so.
- **CPU time, not wall time.** A server is measured by the CPU time that it used for the counted
  messages: `CLOCK_PROCESS_CPUTIME_ID` of all its processes, which includes the kernel's work in its
  system calls. The generator lets everything in flight arrive, says "begin", and waits; the runner
  reads the clocks; the same at the end. So what is counted and what is charged are the same work.
  Wall time would measure the slower of two cores, and on most rows that is partly the generator;
  CPU time says what a core of the server is worth, whoever waits for whom.
- **Pairs.** Each row runs ours, a peer, ours, the next peer, and so on, for several rounds. A ratio is
  taken within a pair, where the machine was in the same mood, and its median and spread are shown.
- **Closed and open loop.** "One at a time" and bursts are closed loops: the next message leaves
  when all have the last. The rows "by the clock" are open: messages are due at fixed times, and are
  timed from when they were due, so a server that falls behind cannot hide it.
- **Latency** is from the sending (or the due time) to the read that got the message, in the
  generator. It includes the generator's own queue: where the generator was the limit, the remarks
  say so.

## What it does not claim

- Loopback is no network. There are no lost packets, no interrupts of a network card, no TLS.
- Two cores of a virtual machine are no server. Absolute figures differ between machines by far more
  than the ratios do, and other tenants of the host can be seen in the spreads.
- A kernel that accounts softirq time apart (see *softirq time* above) charges loopback's receive
  path to nobody, and flatters whoever makes the most system calls.
- It measures hubs at what hubs do. It says nothing of the rest of a framework, of several workers,
  or of a server with several cores; Go and Rust would use them, one Python process does not.
- Joining what one turn of the event loop has for a client makes bursts cheap. Where messages come
  one at a time with silence between them there is nothing to join, and the row "one at a time"
  says what is left.
- A Python that was built without profile-guided optimisation, as tools that compile it on the spot do
  by default, is 1.2 to 1.5 times slower at everything that is not the kernel's. The Pythons of
  distributions and of python.org are optimised.
- Where one `send()` costs 8 us, as on the machine of these figures, a fan-out to 1,000 clients takes
  8 ms of the core before anything else: a p99 of 10 ms by the clock leaves no room for a second one.
- The kernel program has no limits, no queues and no protection from a slow client. It is a yardstick.

## Repeat it

```sh
make bench                                       # everything; two to three hours
python -m benchmarks.run --quick                 # everything, one short round; minutes
python -m benchmarks.run --only one,rooms,kernel # some rows, some peers; prints, writes no page
python -m benchmarks.run --only history,recovery # rows of rooms that remember, by their names too
python -m benchmarks.run --only through,lag,cost,storm,interest,packed,rivals --write   # rows of brokers
python -m benchmarks.run --list                  # the names of rows, series and peers
```

It needs Linux, a C compiler and two cores. As root on Debian it installs Go and Node.js where they
are missing; elsewhere it names what it could not have as missing. The raw results of this page are
in [`benchmarks/results/benchmarks.json`](../benchmarks/results/benchmarks.json), those of rooms that remember in
[`benchmarks/results/rooms.json`](../benchmarks/results/rooms.json), those of brokers in
[`benchmarks/results/brokers.json`](../benchmarks/results/brokers.json).
"""


def opening(results: dict[str, Any]) -> str:
    abouts = list(about_rows(results, [*results["rows"], *results["series"]]).values())
    text = OPENING.format(date=dates(abouts), commit=commits(abouts))
    if differ(abouts):
        return f"{text}\n{MIXED}\n"
    return f"{text}\n{QUICK}" if abouts[0]["is_quick"] else text
