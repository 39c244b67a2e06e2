"""The scripts of presence against a model: the memory broker's store, step by step."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hubbub import ClientInfo
from hubbub.brokers.broker import PresenceTerms
from hubbub.brokers.presence import PresenceStore
from hubbub.brokers.valkey_names import Names
from hubbub.brokers.valkey_presence import ValkeyPresence
from hubbub.brokers.valkey_presence_scripts import ENTER
from valkey_server import connections, fresh_prefix, let_time_pass

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", range(12))
async def test_they_do_what_the_memory_broker_does(seed: int) -> None:
    draw = random.Random(seed)
    prefix, made = fresh_prefix(), connections()
    presence, store = ValkeyPresence(made.client, Names(prefix)), PresenceStore()
    now = 0.0
    grace_s = draw.choice([0.0, 50.0])
    terms = PresenceTerms(100.0, grace_s, draw.choice([0, 3, 100]))
    numbers = []
    for _ in range(80):
        names = [f"n{draw.randrange(8)}" for _ in range(draw.randrange(1, 4))]
        match draw.choice(["enter", "enter", "leave", "time", "expire"]):
            case "enter":
                # A name is one connection: whose it is never changes.
                members = {
                    name: ClientInfo(name, "uv"[int(name[1]) % 3 :][:1] or None) for name in names
                }
                change = store.enter("red", members, terms, now)
                entered = await presence.enter("red", members, terms)
                assert entered.is_quiet == change.is_quiet
                expected, found = change.infos, entered.infos
            case "leave":
                expected = store.leave("red", names, terms, now).infos
                found = await presence.leave("red", names, terms)
            case "time":
                now += 40.0
                await let_time_pass(made.client, prefix, 40.0)
                continue
            case _:
                expected = store.expire("red", terms, now).infos
                found = await presence.expire("red", terms)
        # Of several whose leases end together, which is a person's last is nobody's business.
        assert sorted(info.key for info in found) == sorted(info.key for info in expected)
        snapshot = await presence.snapshot("red")
        assert sorted(snapshot.infos, key=str) == sorted(store.snapshot("red").infos, key=str)
        assert await presence.stats("red") == store.stats("red")
        numbers.append(snapshot.at)
    assert numbers == sorted(numbers)
    await made.close()


async def test_numbers_grow_though_the_server_has_forgotten_all() -> None:
    prefix, made = fresh_prefix(), connections()
    presence, terms = ValkeyPresence(made.client, Names(prefix)), PresenceTerms(60.0, 0.0, 100)
    ann = {"a": ClientInfo("a")}
    await presence.enter("red", ann, terms)
    first = (await presence.snapshot("red")).at
    keys: list[Any] = await made.client.keys(f"{prefix}:*")
    await made.client.delete(*keys)
    assert (await presence.snapshot("red")).at == 0
    await presence.enter("red", ann, terms)
    assert first < (await presence.snapshot("red")).at < 2**53, "a number that JavaScript has too"
    await made.close()


async def test_a_room_without_people_leaves_its_number_and_that_for_a_day() -> None:
    prefix, made = fresh_prefix(), connections()
    presence, terms = ValkeyPresence(made.client, Names(prefix)), PresenceTerms(60.0, 0.0, 100)
    await presence.enter("red", {"a": ClientInfo("a")}, terms)
    for key in await made.client.keys(f"{prefix}:*"):
        assert 0 < await made.client.ttl(key) <= 24 * 3600 + 60
    await presence.leave("red", ["a"], terms)
    assert await made.client.keys(f"{prefix}:*") == [f"{prefix}:{{red}}:p:state".encode()]
    await made.close()


def test_the_share_at_which_a_room_is_told_of_again_is_that_of_the_memory_broker() -> None:
    assert "count * 100 <= told_up_to * 75" in ENTER
