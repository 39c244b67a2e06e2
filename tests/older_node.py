"""A process of the version before publications said who published them, as far as it shows on a broker's server.

    python older_node.py URL PREFIX

What must not live here: tests. It reads an array of a verb and its arguments on each line of stdin, as in `answer`,
and answers each with a line of JSON. A client named "old" is in the rooms "log" and "who".
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

import msgspec

RULES: list[dict[str, Any]] = [
    {"pattern": "log", "history": 100, "publish": "members"},
    {"pattern": "who", "presence": True, "join_leave": True, "leave_grace_s": 0},
]


class Before(msgspec.Struct, array_like=True):
    """An envelope of that version."""

    sender: str
    number: int
    data: bytes
    is_text: bool = True
    kind: int = 0
    exclude: str | None = None
    key: str | None = None
    origin: str | None = None
    time_ms: int | None = None

    @property
    def publisher(self) -> None:
        """Return what it does not say."""


@dataclass(frozen=True, slots=True, init=False)
class InfoBefore:
    """What that version said of a member."""

    client: str
    user: str | None
    info: Any

    def __init__(
        self, client: str, user: str | None = None, info: Any = None, conn_info: Any = None
    ) -> None:
        for name, value in (("client", client), ("user", user), ("info", info)):
            object.__setattr__(self, name, value)

    @property
    def conn_info(self) -> None:
        """Return what it does not say."""

    @property
    def key(self) -> str:
        """By what a person is known."""
        return self.client if self.user is None else f"@{self.user}"


def become_older() -> None:
    """Write and read as that version, in all that is imported from now on."""
    from hubbub import model

    model.ClientInfo = InfoBefore  # type: ignore[assignment, misc]
    from hubbub.brokers import envelope, nats_presence

    envelope.Envelope = lambda *fields: Before(*fields[:9])  # type: ignore[assignment, misc]
    envelope._decoder = msgspec.msgpack.Decoder(Before)
    nats_presence.COUNTED = "Nobody-Reads"
    nats_presence._counted = lambda stored: None


async def answer(hub: Any, peer: Any, verb: str, *told: Any) -> Any:
    """Do what a line asks for."""
    match verb:
        case "publish":
            receipt = await hub.publish("log", told[0], key=told[1])
            return [receipt.position.offset, receipt.is_repeated]
        case "history":
            return [each.data.decode() for each in (await hub.history("log")).publications]
        case "presence":
            return sorted(info.user for info in (await hub.presence("who")).values())
        case "heard":
            return [str(each) for each in peer.received]
        case "nodes":
            return len(await hub.nodes(wait_s=0.2))
        case "disconnect":
            return hub.disconnect(told[0])
        case "closed":
            return peer.closed is not None
    raise ValueError(verb)


async def run(url: str, prefix: str) -> None:
    """Serve the client until the input ends."""
    from hubbub import Hub, RoomRules
    from hubbub.testing import connect

    hub = Hub(broker=url, broker_prefix=prefix, room_rules=[RoomRules(**each) for each in RULES])
    await hub.start()
    peer = connect(hub, user="old", info={"name": "Old"})
    for room in ("log", "who"):
        await peer.client.subscribe(room)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await answer(hub, peer, *json.loads(line))), flush=True)
    await hub.stop()


if __name__ == "__main__":
    become_older()
    asyncio.run(run(*sys.argv[1:]))
