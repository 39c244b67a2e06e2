"""API keys: who may call the HTTP API, what each may do there, and how fast.

What must not live here: HTTP (`api`), the methods (`api_methods`).

No key is kept: only what SHA-256 makes of it, which is all that comparing needs. So none is in a log, an error, a
`repr` or the memory of a process that is looked into.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..limits import BURST_S, TokenBucket
from ..room_rules import check_pattern, matches

LEAST_KEY_CHARACTERS = 16
"""How long a key is at least: nobody finds it by trying."""
KEY_VARIABLE = "API_KEY"
"""The environment variable that has the API's key. It is no setting of a hub, and is not called like one."""
SETTING = "api_keys_file"
"""The setting that names a file of keys."""

_KEY = re.compile(rf"[!-~]{{{LEAST_KEY_CHARACTERS},512}}")
_FIELDS = ("key", "name", "methods", "rooms", "per_second")


class ApiKey:
    """A key of the HTTP API, and what may be done with it.

    `key` is the secret: 16 to 512 printable ASCII characters without spaces, such as
    `secrets.token_urlsafe(24)` makes; it is not kept. `name` is what logs call it. `methods` are the methods that
    it may call (None: all); `rooms` the rooms, by name or by prefix with `*` at its end (None: all). A key with
    `rooms` may call what concerns no room (disconnect, refresh, info) only if `methods` names that. `per_second`
    is how many methods a second it may call, on the average, in each process (None: no limit); a burst of two
    seconds' worth may come at once. Raises `TypeError` or `ValueError`, never with the key.
    """

    __slots__ = ("_digest", "methods", "name", "per_second", "rooms")

    def __init__(
        self,
        key: str,
        *,
        name: str = "",
        methods: Sequence[str] | None = None,
        rooms: Sequence[str] | None = None,
        per_second: float | None = None,
    ) -> None:
        if not isinstance(key, str):
            raise TypeError(f"an API key is a str, not {type(key).__name__}")
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"an API key has {LEAST_KEY_CHARACTERS} to 512 printable ASCII characters without "
                "spaces, such as secrets.token_urlsafe(24) makes; this one has not"
            )
        self._digest: bytes = _digest_of(key)
        self.name: str = _text(name, "name")
        self.methods: frozenset[str] | None = _names(methods, "methods")
        self.rooms: tuple[str, ...] | None = None
        if rooms is not None:
            self.rooms = tuple(sorted(_names(rooms, "rooms") or ()))
            for pattern in self.rooms:
                check_pattern(pattern, "rooms of an API key")
        if per_second is not None and (
            isinstance(per_second, bool)
            or not isinstance(per_second, int | float)
            or not 0 < per_second < 1e9
        ):
            raise ValueError(f"per_second is a number over 0, or None, not {per_second!r:.80}")
        self.per_second: float | None = per_second

    def __repr__(self) -> str:
        return f"<ApiKey {self.name!r}>"

    def is_key(self, digest: bytes) -> bool:
        """Tell whether a key is this one, by its digest, in a time that does not depend on it."""
        return hmac.compare_digest(self._digest, digest)

    def is_same(self, other: ApiKey) -> bool:
        """Tell whether two have the same secret."""
        return other.is_key(self._digest)

    def may_call(self, method: str, *, has_room: bool) -> bool:
        """Tell whether the key may call a method, whatever room that may be for."""
        if self.methods is None:
            return has_room or self.rooms is None
        return method in self.methods

    def may_use(self, room: str) -> bool:
        """Tell whether the key may do anything with a room."""
        return self.rooms is None or any(matches(pattern, room) for pattern in self.rooms)


class Caller:
    """One who calls with a key: what is left of its rate in this process."""

    __slots__ = ("_bucket", "_clock", "key")

    def __init__(self, key: ApiKey, clock: Callable[[], float]) -> None:
        self.key: ApiKey = key
        self._clock = clock
        self._bucket: TokenBucket | None = None

    def charge(self) -> bool:
        """Charge one method; False: it is one too many."""
        rate = self.key.per_second
        if rate is None:
            return True
        now = self._clock()
        if self._bucket is None:
            self._bucket = TokenBucket(rate, rate * BURST_S, now)
        return self._bucket.take(now)


class KeyRing:
    """The keys of one API. Raises `ValueError` for none at all, and for a key that is there twice."""

    def __init__(self, keys: Iterable[str | ApiKey], clock: Callable[[], float]) -> None:
        if isinstance(keys, str | ApiKey):
            raise TypeError("keys is a list of keys: write keys=[key]")
        self._callers: list[Caller] = []
        for number, each in enumerate(keys, 1):
            key = each if isinstance(each, ApiKey) else ApiKey(each)
            if any(other.key.is_same(key) for other in self._callers):
                raise ValueError(f"the API key number {number} is there already")
            key.name = key.name or f"key {number}"
            self._callers.append(Caller(key, clock))
        if not self._callers:
            raise ValueError("an API without a key lets nobody in: give it keys")

    @property
    def keys(self) -> list[ApiKey]:
        """The keys, in their order."""
        return [caller.key for caller in self._callers]

    def find(self, secret: str) -> Caller | None:
        """Return who has this key, None for nobody. It takes the same time for every key and for none."""
        digest, found = _digest_of(secret), None
        for caller in self._callers:
            if caller.key.is_key(digest):
                found = caller
        return found


def read_keys(path: str, source: str = "keyword") -> list[ApiKey]:
    """Read a file of keys: a line for each, which is the key itself, or a JSON object with the arguments of `ApiKey`.

    Empty lines, and those that begin with `#`, say nothing. Raises `SettingsError`, which names the line, and never
    says what stands in it. `source` says where the path came from, for errors.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise SettingsError(
            SETTING, path, f"must name a file that can be read: {why}", source=source
        ) from None
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            keys.append(_read_key(path, number, line, source))
    if not keys:
        raise SettingsError(SETTING, path, "must name a file with a key in it", source=source)
    return keys


def _read_key(path: str, number: int, line: str, source: str) -> ApiKey:
    try:
        if not line.startswith("{"):
            return ApiKey(line)
        fields: dict[str, Any] = json.loads(line)
        wrong = sorted(set(fields) - set(_FIELDS))
        if wrong or "key" not in fields:
            raise ValueError(f"an object has a key, and of {', '.join(_FIELDS)} what it needs")
        return ApiKey(fields.pop("key"), **fields)
    except (ValueError, RecursionError, TypeError) as error:
        # What JSON says of a line that is none quotes nothing of it, nor does an ApiKey its key.
        why = "it is no JSON object" if isinstance(error, json.JSONDecodeError) else str(error)
        raise SettingsError(SETTING, path, f"line {number}: {why}", source=source) from None


def _digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} of an API key is a str, not {type(value).__name__}")
    return value


def _names(value: object, name: str) -> frozenset[str] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} of an API key is a list, not {type(value).__name__}")
    return frozenset(_text(each, name) for each in value)
