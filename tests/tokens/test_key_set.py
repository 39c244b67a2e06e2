"""Key set: when keys are fetched, when not, and for how long old ones count."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from hubbub.errors import TokenKeysUnavailable
from hubbub.testing import FakeClock
from hubbub.tokens.fetch import Source
from hubbub.tokens.key_set import Freshness, KeySet
from issuing import Issuer, answer, issuing, jwk, private_key
from serving import PATIENCE_S

pytestmark = pytest.mark.anyio

FIRST, SECOND = jwk(private_key("ES256"), "first"), jwk(private_key("ES256", "2"), "second")
TTL_S, GRACE_S, COOLDOWN_S = 300.0, 3600.0, 10.0


class Watched:
    """A key set, its issuer, its clock."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.clock = FakeClock()
        freshness = Freshness(TTL_S, GRACE_S, COOLDOWN_S)
        self.keys = KeySet(Source(issuer.url, PATIENCE_S), freshness, self.clock)

    async def find(self, kid: str, algorithm: str = "ES256") -> list[str | None]:
        return [key.kid for key in await self.keys.find(kid, algorithm)]

    async def assert_unavailable(self, kid: str = "first") -> None:
        with pytest.raises(TokenKeysUnavailable):
            await self.find(kid)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with issuing() as issuer:
        issuer.publish(FIRST)
        yield Watched(issuer)


async def test_nothing_is_fetched_before_somebody_asks(watched: Watched) -> None:
    assert watched.issuer.requests == 0
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 1


async def test_keys_are_fetched_again_when_they_are_old(watched: Watched) -> None:
    for _ in range(5):
        assert await watched.find("first") == ["first"]
    watched.clock.advance(TTL_S - 1)
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 1
    watched.clock.advance(1)
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 2


async def test_a_key_that_is_no_longer_published_is_forgotten_with_the_old_set(
    watched: Watched,
) -> None:
    await watched.find("first")
    watched.issuer.publish(SECOND)
    assert await watched.find("first") == ["first"]
    watched.clock.advance(TTL_S)
    assert await watched.find("first") == []
    assert await watched.find("second") == ["second"]
    assert watched.issuer.requests == 2


async def test_a_new_key_is_looked_for_when_a_token_names_it(watched: Watched) -> None:
    await watched.find("first")
    watched.issuer.publish(FIRST, SECOND)
    watched.clock.advance(COOLDOWN_S)
    assert await watched.find("second") == ["second"]
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 2


async def test_what_a_new_set_does_not_have_is_not_looked_for_again(watched: Watched) -> None:
    freshness = Freshness(TTL_S, GRACE_S, 0)
    keys = KeySet(Source(watched.issuer.url, PATIENCE_S), freshness, watched.clock)
    assert await keys.find("forged", "ES256") == []
    assert watched.issuer.requests == 1
    watched.clock.advance(TTL_S)
    assert await keys.find("forged", "ES256") == []
    assert watched.issuer.requests == 2


async def test_a_key_for_another_algorithm_is_not_found(watched: Watched) -> None:
    await watched.find("first")
    watched.clock.advance(COOLDOWN_S)
    assert await watched.find("first", "RS256") == []


async def test_forged_names_cause_one_fetch_in_the_cooldown(watched: Watched) -> None:
    assert await watched.find("first") == ["first"]
    for number in range(200):
        await watched.assert_unavailable(f"forged-{number}")
        assert await watched.find("first") == ["first"], "others notice nothing"
    assert watched.issuer.requests == 1
    watched.clock.advance(COOLDOWN_S)
    assert await watched.find("forged") == [], "now it is known that there is no such key"
    for number in range(200):
        await watched.assert_unavailable(f"forged-{number}")
    assert watched.issuer.requests == 2


async def test_a_storm_of_forged_names_at_once_shares_one_fetch(watched: Watched) -> None:
    await watched.find("first")
    watched.clock.advance(COOLDOWN_S)
    found = await asyncio.gather(*(watched.find(f"forged-{number}") for number in range(200)))
    assert found == [[]] * 200
    assert watched.issuer.requests == 2


async def test_the_first_who_come_share_one_fetch(watched: Watched) -> None:
    watched.issuer.publish_when_told(FIRST)
    tasks = [asyncio.create_task(watched.find("first")) for _ in range(50)]
    await asyncio.to_thread(watched.issuer.came.wait)
    assert not any(task.done() for task in tasks)
    watched.issuer.may_go.set()
    assert await asyncio.gather(*tasks) == [["first"]] * 50
    assert watched.issuer.requests == 1


async def test_who_is_cancelled_takes_no_fetch_from_the_others(watched: Watched) -> None:
    watched.issuer.publish_when_told(FIRST)
    tasks = [asyncio.create_task(watched.find("first")) for _ in range(3)]
    await asyncio.to_thread(watched.issuer.came.wait)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    watched.issuer.may_go.set()
    assert await asyncio.gather(*tasks[1:]) == [["first"]] * 2
    assert watched.issuer.requests == 1


async def test_while_fetches_fail_the_old_keys_count_for_a_bounded_time(watched: Watched) -> None:
    await watched.find("first")
    watched.issuer.answer = answer(b"", 500)
    watched.clock.advance(TTL_S)
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 2
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 2, "a failed fetch has its cooldown too"
    watched.clock.advance(GRACE_S - 1)
    assert await watched.find("first") == ["first"]
    watched.clock.advance(1)
    await watched.assert_unavailable()
    watched.issuer.publish(FIRST)
    watched.clock.advance(COOLDOWN_S)
    assert await watched.find("first") == ["first"], "and all is well again"


@pytest.mark.parametrize(
    "document", [b"", b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "oct", "kid": "first"}]}']
)
async def test_garbage_does_not_replace_keys(watched: Watched, document: bytes) -> None:
    await watched.find("first")
    watched.issuer.answer = answer(document)
    watched.clock.advance(TTL_S)
    assert await watched.find("first") == ["first"]
    assert watched.issuer.requests == 2


async def test_a_server_of_which_it_is_known_that_it_fails_keeps_nobody_waiting(
    watched: Watched,
) -> None:
    await watched.find("first")
    watched.issuer.answer = answer(b"", 500)
    watched.clock.advance(TTL_S)
    await watched.find("first")
    watched.issuer.publish_when_told(FIRST, SECOND)
    watched.issuer.came.clear()
    watched.clock.advance(COOLDOWN_S)
    assert await watched.find("first") == ["first"], "from the old keys, while a fetch goes on"
    await asyncio.to_thread(watched.issuer.came.wait)
    waiting = asyncio.create_task(watched.find("second"))
    watched.issuer.may_go.set()
    assert await waiting == ["second"]
    assert watched.issuer.requests == 3


async def test_without_any_key_nothing_can_be_said_and_the_server_is_spared(
    watched: Watched,
) -> None:
    watched.issuer.answer = answer(b"", 503)
    for _ in range(50):
        await watched.assert_unavailable()
    assert watched.issuer.requests == 1
    watched.clock.advance(COOLDOWN_S)
    await watched.assert_unavailable()
    assert watched.issuer.requests == 2


async def test_a_new_name_while_fetches_fail_may_be_a_good_one(watched: Watched) -> None:
    await watched.find("first")
    watched.issuer.answer = answer(b"", 500)
    watched.clock.advance(COOLDOWN_S)
    await watched.assert_unavailable("second")
    assert await watched.find("first") == ["first"]


async def test_a_server_that_hangs_is_a_fetch_that_fails(watched: Watched) -> None:
    watched.issuer.hang()
    freshness = Freshness(TTL_S, GRACE_S, COOLDOWN_S)
    keys = KeySet(Source(watched.issuer.url, 0.05), freshness, watched.clock)
    with pytest.raises(TokenKeysUnavailable):
        await keys.find("first", "ES256")


async def test_a_fetch_of_a_loop_that_has_ended_is_begun_again(watched: Watched) -> None:
    """As where tests run a loop each, and one ends while a fetch goes on."""
    watched.issuer.publish_when_told(FIRST)

    async def begin() -> None:
        task = asyncio.create_task(watched.find("first"))
        while not watched.issuer.came.is_set():
            await asyncio.sleep(0)
        task.cancel()

    await asyncio.to_thread(asyncio.run, begin())
    watched.issuer.may_go.set()
    watched.clock.advance(COOLDOWN_S)
    assert await watched.find("first") == ["first"]


async def test_nobody_waits_for_the_fetch_of_another_loop(watched: Watched) -> None:
    watched.issuer.publish_when_told(FIRST)
    other = threading.Thread(target=lambda: asyncio.run(watched.find("first")))
    other.start()
    await asyncio.to_thread(watched.issuer.came.wait)
    watched.issuer.publish(FIRST)
    assert await watched.find("first") == ["first"]
    watched.issuer.may_go.set()
    await asyncio.to_thread(other.join)


async def test_the_log_says_what_went_wrong_and_what_follows(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.issuer.url += "?key=s3cr3t"
    watched.keys._source = watched.keys._source._replace(url=watched.issuer.url)
    caplog.set_level(logging.DEBUG)
    watched.issuer.answer = answer(b"", 500)
    for _ in range(20):
        await watched.assert_unavailable()
    shown = watched.issuer.url.partition("?")[0]
    begin = f"the key set at {shown} could not be fetched: the answer has the status 500; "
    assert [record.getMessage() for record in caplog.records if record.name == "hubbub"] == [
        begin + "no token of its keys can be checked"
    ]
    watched.issuer.publish(FIRST)
    watched.clock.advance(COOLDOWN_S)
    await watched.find("first")
    watched.issuer.answer = answer(b"", 500)
    watched.clock.advance(TTL_S)
    await watched.find("first")
    last = caplog.records[-1]
    assert last.getMessage() == begin + "the keys fetched before count for 3600 seconds more"
    assert last.levelname == "WARNING"
    assert "s3cr3t" not in caplog.text
