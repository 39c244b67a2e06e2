"""Key set: the keys that an issuer publishes (JWKS, RFC 7517), fetched anew from time to time.

What must not live here: HTTP (`fetch`), what a key is (`keys`), tokens. `verifier` calls it.

Keys are fetched when somebody asks and they are older than `ttl_s`, or when a token names a key that is not
among them: so a rotation needs no restart. Who sends forged names causes one fetch in `cooldown_s` at most. All
who ask meanwhile wait for the same fetch. While fetches fail, the old keys count for `grace_s` after their time,
and nobody waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from ..errors import TokenKeysUnavailable
from ..limits import printable
from ..logs import logger
from .fetch import Source, fetch
from .keys import Key, read_key_set


class Freshness(NamedTuple):
    """How long keys count, in seconds.

    `ttl_s` until they are fetched anew, `grace_s` how much longer they count while that fails (0: not
    at all), `cooldown_s` from the end of a fetch to the next one (0: none).
    """

    ttl_s: float
    grace_s: float
    cooldown_s: float


class KeySet:
    """The keys at one URL. Event loop only, one loop at a time. `clock` gives seconds."""

    def __init__(
        self, source: Source, freshness: Freshness, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._freshness = freshness
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetched_at = 0.0
        self._fetches = 0
        """How many fetches have brought keys."""
        self._ended_at: float | None = None
        self._is_failing = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> list[Key]:
        """Return the keys of this name that are good for the algorithm; none if the issuer has none.

        Raises `TokenKeysUnavailable` where that cannot be known: there are no keys, or this one is
        not among them and may not be looked for yet.
        """
        fetches = self._fetches
        if not self._has_keys(self._freshness.ttl_s):
            await self._fetch(waits=not (self._is_failing and self._is_usable()))
        if not self._is_usable():
            raise TokenKeysUnavailable
        found = self._named(kid, algorithm)
        if not found and fetches == self._fetches:
            await self._fetch(waits=True)
            found = self._named(kid, algorithm)
            if not found and fetches == self._fetches:
                raise TokenKeysUnavailable
        return found

    def _named(self, kid: str, algorithm: str) -> list[Key]:
        return [key for key in self._keys if key.kid == kid and algorithm in key.algorithms]

    def _is_usable(self) -> bool:
        return self._has_keys(self._freshness.ttl_s + self._freshness.grace_s)

    def _has_keys(self, max_age_s: float) -> bool:
        """Tell whether there are keys that are younger than this."""
        return self._fetches > 0 and self._clock() - self._fetched_at < max_age_s

    async def _fetch(self, *, waits: bool) -> None:
        """Fetch the keys, unless it is too early; with `waits` return when that, or a fetch begun before, is over."""
        task = self._running()
        if task is None:
            ended_at = self._ended_at
            if ended_at is not None and self._clock() - ended_at < self._freshness.cooldown_s:
                return
            task = self._fetching = asyncio.create_task(self._fetch_now())
        if waits:
            # Not `await task`: who is cancelled here must not cancel it for the others.
            await asyncio.wait([task])

    def _running(self) -> asyncio.Task[None] | None:
        """Return the fetch that goes on, if it does so in this event loop."""
        task = self._fetching
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    async def _fetch_now(self) -> None:
        try:
            self._keys = await fetch(self._source, read_key_set)
            self._fetched_at = self._clock()
            self._fetches += 1
            self._is_failing = False
        except Exception as error:
            self._is_failing = True
            self._log(error)
        finally:
            self._ended_at = self._clock()

    def _log(self, error: Exception) -> None:
        """Say that a fetch has failed. One line in `cooldown_s` at most."""
        left_s = self._fetched_at + self._freshness.ttl_s + self._freshness.grace_s - self._clock()
        effect = "no token of its keys can be checked"
        if self._fetches and left_s > 0:
            effect = f"the keys fetched before count for {left_s:.0f} seconds more"
        text = printable(str(error) or type(error).__name__)
        logger.log(
            logging.WARNING,
            "the key set at %s could not be fetched: %s; %s",
            self._source.shown,
            text,
            effect,
        )
