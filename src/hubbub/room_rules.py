"""Room rules: what a room keeps and promises, by its name.

What must not live here: how it is kept (`brokers`), and which rooms there are (`hub`).
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeVar, cast, get_args

from .errors import CommandError, SettingsError
from .limits import check_room_name
from .model import USER_PREFIX

SlowPolicy = Literal["disconnect", "drop_oldest", "drop_newest", "latest"]
SLOW_POLICIES: tuple[SlowPolicy, ...] = get_args(SlowPolicy)

PublishRule = Literal["server", "members"]
"""Who may publish by a command of a client."""

JOIN_LEAVE_MAX_MEMBERS = 500
LEAVE_GRACE_S = 10.0


T = TypeVar("T")


def _names_its_fields(made: type[T]) -> type[T]:
    """Let a dataclass say which fields it has, when it is given one that it has not."""
    plain: Callable[..., None] = vars(made)["__init__"]
    names = [name for name in inspect.signature(plain).parameters if name != "self"]

    @functools.wraps(plain)
    def init(self: T, *arguments: Any, **keywords: Any) -> None:
        for name in keywords:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {near[0]}?" if near else "."
                fields = ", ".join(names)
                raise TypeError(f"{made.__name__} has no {name!r}{hint} Its fields: {fields}")
        plain(self, *arguments, **keywords)

    type.__setattr__(made, "__init__", init)
    return made


@_names_its_fields
@dataclass(frozen=True, slots=True)
class RoomRules:
    """What holds for the rooms that `pattern` names: a name, or a prefix with `*` at its end.

    `history` is how many publications each of the rooms keeps (0: none), for `history_ttl_s` seconds
    and up to `history_bytes` bytes of messages. `recover` says whether a client that comes back is
    given what it missed; `cache` that only the newest publication matters, so that whoever joins is
    given that one, and no older one is. `stream` that the publications are pieces of a text that
    grows, which `Room.stream` makes: whoever joins is given the text so far. `delta` lets clients that
    ask for it have a message as the difference to the one before it: less to send, and more to compute.
    `slow_policy` is what a full outbox does (None: what the setting of that name says). `publish` says
    who may publish by a command: nobody but the server, or the members of the room (None: whom the
    authorize handler allows).

    `presence` says whether it is known who is in the room, `join_leave` whether the members are told of
    joins and leaves: while there are up to `join_leave_max_members` people in the room. Who comes back
    within `leave_grace_s` seconds has not left (0: who leaves has left at once).

    Raises `SettingsError` for a rule that cannot be.
    """

    pattern: str
    _: KW_ONLY
    history: int = 0
    history_ttl_s: float = 3600.0
    history_bytes: int = 1024**2
    recover: bool = True
    cache: bool = False
    stream: bool = False
    delta: bool = False
    slow_policy: SlowPolicy | None = None
    publish: PublishRule | None = None
    presence: bool = False
    join_leave: bool = False
    join_leave_max_members: int = JOIN_LEAVE_MAX_MEMBERS
    leave_grace_s: float = LEAVE_GRACE_S

    def __post_init__(self) -> None:
        check_pattern(self.pattern, "room_rules")
        self._check_number("history", 0, whole=True)
        self._check_number("history_ttl_s", 0.01)
        self._check_number("history_bytes", 1, whole=True)
        self._check_number("join_leave_max_members", 1, whole=True)
        self._check_number("leave_grace_s", 0)
        for name in ("recover", "cache", "stream", "delta", "presence", "join_leave"):
            if type(getattr(self, name)) is not bool:
                raise self._wrong(name, "must be True or False")
        if self.slow_policy not in (None, *SLOW_POLICIES):
            raise self._wrong("slow_policy", f"must be one of {', '.join(SLOW_POLICIES)}, or None")
        if self.publish not in (None, *get_args(PublishRule)):
            raise self._wrong("publish", 'must be "server", "members" or None')
        if self.cache and not self.history:
            raise self._wrong("cache", "needs history=1")
        if self.history_bytes < self.history:
            raise self._wrong("history_bytes", f"is too small for history={self.history}: raise it")
        if self.join_leave and not self.presence:
            raise self._wrong("join_leave", "needs presence=True")
        if self.leave_grace_s != LEAVE_GRACE_S and not self.presence:
            raise self._wrong("leave_grace_s", "needs presence=True")
        if self.join_leave_max_members != JOIN_LEAVE_MAX_MEMBERS and not self.join_leave:
            raise self._wrong("join_leave_max_members", "needs presence=True and join_leave=True")
        if self.stream and not self.recovers:
            raise self._wrong("stream", "needs recover=True and a history, as in history=10_000")
        if self.stream and self.cache:
            raise self._wrong("stream", "needs all pieces, and cache=True keeps one")
        if self.delta and (self.stream or not self.recovers):
            raise self._wrong(
                "delta", "needs recover=True and a history, as in history=100, and no stream"
            )
        if self.delta and self.slow_policy == "latest":
            raise self._wrong("slow_policy", "drops messages that delta=True makes the next one of")
        if self.recovers and self.slow_policy == "latest" and not self.cache:
            raise self._wrong(
                "slow_policy",
                "drops messages that recover=True promises: write cache=True for a room in which "
                "only the newest counts, or recover=False",
            )

    def _check_number(self, name: str, least: float, *, whole: bool = False) -> None:
        value = getattr(self, name)
        kinds = int if whole else (int, float)
        is_right = isinstance(value, kinds) and not isinstance(value, bool)
        if not (is_right and least <= value < 1e15):  # NaN fails too
            what = "a whole number" if whole else "a number"
            raise self._wrong(name, f"must be {what}, at least {least:g}")

    def _wrong(self, name: str, expected: str) -> SettingsError:
        shown = {"pattern": self.pattern, name: getattr(self, name)}
        return SettingsError("room_rules", shown, f"{name} {expected}")

    @property
    def recovers(self) -> bool:
        """Whether a client that comes back is given what it missed."""
        return self.recover and self.history > 0

    def fits(self, room: str) -> bool:
        """Tell whether the rule is for the room of that name."""
        return matches(self.pattern, room)


def matches(pattern: str, room: str) -> bool:
    """Tell whether a pattern names a room: it is the name, or a prefix of it with `*` at its end."""
    return room.startswith(pattern[:-1]) if pattern.endswith("*") else room == pattern


def check_pattern(pattern: object, setting: str, *, of_users: bool = False) -> None:
    """Raise `SettingsError` for what is no pattern of rooms, and for one that no room's name can fit.

    `of_users`: it may name the rooms of users too, as "@ann" and "@*".
    """
    if not isinstance(pattern, str) or not pattern or "*" in pattern.removesuffix("*"):
        raise SettingsError(setting, pattern, "must be a name, or a prefix with * at its end")
    begin = pattern.removesuffix("*")
    if begin and not (of_users and begin.startswith(USER_PREFIX)):
        try:
            check_room_name(begin)
        except CommandError as error:
            raise SettingsError(setting, pattern, f"fits no room: {error.message}") from None


def covers(pattern: str, other: str) -> bool:
    """Tell whether a pattern names all rooms that another names."""
    return other.startswith(pattern[:-1]) if pattern.endswith("*") else other == pattern


def checked_rules(value: object) -> tuple[RoomRules, ...]:
    """Return rules in their order; raise `SettingsError` for one that no room can ever have."""
    if isinstance(value, RoomRules):
        value = (value,)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SettingsError("room_rules", value, 'must be a list, as in [RoomRules("chat:*")]')
    rules = tuple(value)
    for number, rule in enumerate(rules):
        if not isinstance(rule, RoomRules):
            raise SettingsError("room_rules", rule, 'must be RoomRules, as in RoomRules("chat:*")')
        _check_is_reached(rule, rules[:number])
    return cast("tuple[RoomRules, ...]", rules)


def _check_is_reached(rule: RoomRules, earlier: Sequence[RoomRules]) -> None:
    for other in earlier:
        if covers(other.pattern, rule.pattern):
            same = other.pattern == rule.pattern
            what = "leave one of them out" if same else "put it before that"
            raise SettingsError(
                "room_rules",
                rule.pattern,
                f"is never used, since {other.pattern!r} comes first: {what}",
            )


def read_rules(text: str) -> tuple[RoomRules, ...]:
    """Read rules from JSON, as in `[{"pattern": "chat:*", "history": 100}]`.

    Raises `ValueError` for what is none, `SettingsError` for a rule that cannot be.
    """
    try:
        rows = json.loads(text or "[]")
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("is no list of objects")
    return tuple(map(_read_rule, rows))


def _read_rule(row: dict[str, Any]) -> RoomRules:
    known = ", ".join(RoomRules.__slots__)
    wrong = [name for name in row if name not in RoomRules.__slots__]
    if wrong or "pattern" not in row:
        what = f"has no {wrong[0]!r}" if wrong else "needs a pattern"
        raise SettingsError("room_rules", row, f"{what}; the fields of a rule are {known}")
    return RoomRules(**row)


def shown_rules(rules: Sequence[RoomRules]) -> str:
    """Write rules as JSON, without what is as it is by default."""
    return json.dumps(rule_rows(rules), ensure_ascii=False)


def rule_rows(rules: Sequence[RoomRules]) -> list[dict[str, Any]]:
    """Return the same as what JSON has."""
    return [_shown(rule) for rule in rules]


def _shown(rule: RoomRules) -> dict[str, Any]:
    plain = RoomRules(rule.pattern)
    names = [name for name in rule.__slots__ if name != "pattern"]
    changed = {name: getattr(rule, name) for name in names}
    return {"pattern": rule.pattern} | {
        name: value for name, value in changed.items() if value != getattr(plain, name)
    }
