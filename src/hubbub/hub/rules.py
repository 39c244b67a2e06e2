"""Rules: which rule a room has, and what its broker is told to keep.

What must not live here: what a rule says (`room_rules`), who is in a room (`room`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast

from ..brokers.broker import Ability, Keep, NoteBroker, PresenceTerms
from ..errors import BrokerError, BrokerUnavailable, CommandError, SettingsError
from ..limits import printable
from ..model import EVERYBODY, USER_PREFIX
from ..room_rules import RoomRules, SlowPolicy, checked_rules, covers, read_rules, shown_rules

if TYPE_CHECKING:
    from .core import Core

Owner = TypeVar("Owner")
Fields = ParamSpec("Fields")

MOST_KNOWN = 10_000
"""For how many rooms it is known which rule they have; of more all are looked up anew."""


NOTE = "room_rules"
"""Under which name a broker keeps the rules for who publishes without serving clients."""

SHARE_S = 30.0
"""How often a hub leaves its rules at the broker."""

LEASE_S = 60.0
"""How long a member of a room is known to be there after its process has last said so."""


class Rule:
    """A rule as the hub uses it. `keep` and `terms` are what the broker is told of history and presence
    (None: to keep nothing)."""

    __slots__ = ("keep", "rules", "terms")

    def __init__(self, rules: RoomRules) -> None:
        self.rules: RoomRules = rules
        self.keep: Keep | None = None
        if rules.history:
            self.keep = Keep(rules.history, rules.history_ttl_s, rules.history_bytes)
        self.terms: PresenceTerms | None = None
        if rules.presence:
            told_up_to = rules.join_leave_max_members if rules.join_leave else 0
            self.terms = PresenceTerms(LEASE_S, rules.leave_grace_s, told_up_to)

    @property
    def remembers(self) -> bool:
        """Whether rooms of this rule keep what was published."""
        return self.keep is not None

    @property
    def needs_each_message(self) -> bool:
        """Whether no message may be passed over in silence: what is promised depends on the one before."""
        return (self.rules.recovers and not self.rules.cache) or self.rules.delta

    @property
    def is_stream(self) -> bool:
        """Whether what is published to such a room are pieces of a text."""
        return self.rules.stream

    @property
    def slow_policy(self) -> SlowPolicy | None:
        """What a full outbox does with messages of such a room; None: what the settings say."""
        return self.rules.slow_policy


class Rules:
    """The rules of one hub, in their order. Nobody adds to them once the hub has started."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rules: list[Rule] = [Rule(rules) for rules in core.settings.room_rules]
        self._known: dict[str, Rule | None] = {}
        self.has_any: bool = bool(self._rules)
        """Whether any room has a rule. Every publication asks."""
        if self.has_any:
            core.handlers.forbid_relay()
        self.follows: bool = False
        """Whether they are those that other nodes go by, and not this hub's own: of who only publishes."""
        self._left: bytes | None = None
        """What was written down for publishers last."""
        self._foreign: bytes | None = None
        """What another hub has written in its place, and was told of."""
        self._is_behind: bool = False
        """Whether they could not be shared when that was last tried."""

    def of(self, room: str) -> Rule | None:
        """Return the rule of a room; None for a room without one, a user's and everybody's."""
        if room in self._known:
            return self._known[room]
        found = None
        if room != EVERYBODY and room[0] != USER_PREFIX:
            found = next((rule for rule in self._rules if rule.rules.fits(room)), None)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[room] = found
        return found

    def keep_of(self, room: str) -> Keep | None:
        """Return what the broker is to keep of a room; None for nothing."""
        rule = self.of(room)
        return None if rule is None else rule.keep

    def terms_of(self, room: str) -> PresenceTerms | None:
        """Return how the broker is to keep who is in a room; None for not at all."""
        rule = self.of(room)
        return None if rule is None else rule.terms

    def tells_of_members(self, room: str) -> bool:
        """Tell whether a room's members are told of joins and leaves."""
        terms = self.terms_of(room)
        return terms is not None and terms.told_up_to > 0

    def remembers(self, room: str) -> bool:
        """Tell whether a room keeps what was published."""
        return self.has_any and self.keep_of(room) is not None

    def is_stream(self, room: str) -> bool:
        """Tell whether what is published to a room are pieces of a text."""
        rule = self.of(room) if self.has_any else None
        return rule is not None and rule.is_stream

    def takes_of_members(self, room: str) -> bool:
        """Tell whether a room's members, and nobody else, may publish to it by a command."""
        rule = self.of(room)
        return rule is not None and rule.rules.publish == "members"

    def require_stream(self, room: str) -> None:
        """Raise `CommandError` for a room that keeps no pieces of a text."""
        if not self.is_stream(room):
            text = (
                "this room is no stream; RoomRules make it one, as in stream=True, history=10_000"
            )
            raise CommandError("not_available", text)

    def forbid_stream(self, room: str) -> None:
        """Raise `CommandError` for a room that takes pieces of a text and nothing else."""
        if self.is_stream(room):
            text = "this room is a stream: it takes what its producer appends, and no messages"
            raise CommandError("not_available", text)

    def add(self, rules: RoomRules) -> None:
        """Add a rule behind all others. Raises `SettingsError` for one that is never used."""
        checked_rules([*(rule.rules for rule in self._rules), rules])
        self._rules.append(Rule(rules))
        self.has_any = True
        self._core.handlers.forbid_relay()
        self._known.clear()

    @property
    def are_shared(self) -> bool:
        """Whether who publishes without serving clients goes by these."""
        return Ability.NOTES in self._core.broker.abilities and self._core.serves_clients

    async def share(self) -> None:
        """Let who publishes without serving clients know the rules; or take them from those who serve.

        Raises `BrokerUnavailable`.
        """
        if self.follows:
            await self._follow()
        elif self.are_shared:
            await self._leave()

    async def _leave(self) -> None:
        """Write the rules down; say so where another hub has written others since."""
        notes = cast(NoteBroker, self._core.broker)
        text = (shown_rules([rule.rules for rule in self._rules]) if self._rules else "").encode()
        if self._left is not None:
            found = await notes.noted(NOTE)
            if found not in (None, self._left, self._foreign):
                self._foreign = found
                self._core.log.log(
                    logging.WARNING,
                    "rules",
                    "another hub on this broker has other room_rules, and publishers go by those that were "
                    "written last: give all hubs the same, or each application a prefix. The others are %s",
                    printable((found or b"").decode(errors="replace")) or "none",
                )
        await notes.note(NOTE, text)
        self._left = text

    async def _follow(self) -> None:
        broker = self._core.broker
        notes = cast(NoteBroker, broker) if Ability.NOTES in broker.abilities else None
        # Where nothing is noted nothing is kept either, so the hubs have no rules that a publisher must know.
        found = b"" if notes is None else await notes.noted(NOTE)
        if found is None:
            raise BrokerUnavailable(
                "no hub has been on this broker with this prefix, so it is not known which rooms "
                "remember: is it the URL that the hubs have, or that hubbub serve has printed? Else "
                "start a hub first"
            )
        try:
            rules = read_rules(found.decode()) if found else ()
        except ValueError as error:
            text = "the rules of the hubs cannot be read here; they may be of a newer version: "
            raise BrokerUnavailable(text + printable(str(error))) from error
        self._rules = [Rule(each) for each in rules]
        self.has_any = bool(rules)
        self._known.clear()

    async def share_again(self) -> None:
        """Share them; if that fails, it is tried later, and said once."""
        try:
            await self.share()
        except BrokerError as error:
            if not self._is_behind:
                text = (
                    "the rules of rooms could not be shared with publishers; it is tried again: %s"
                )
                self._core.log.log(logging.WARNING, "rules", text, printable(str(error)))
            self._is_behind = True
        else:
            self._is_behind = False

    def check(self) -> None:
        """Raise `SettingsError` for a rule that needs what the broker has not, and for one that contradicts
        `slow_policies`."""
        for pattern, policy in self._core.registry.rooms.policies.items():
            if pattern.startswith((USER_PREFIX, "*")):
                continue  # it is for users too, who have no rule
            rule = self._rule_that_hides(pattern)
            if rule is not None and rule.slow_policy != policy:
                what = f"RoomRules({rule.rules.pattern!r}, slow_policy={rule.slow_policy!r})"
                text = f"for {pattern!r} is never used, since {what} rules: leave one of them out"
                raise SettingsError("slow_policies", policy, text)
        broker = self._core.broker
        lacks = getattr(broker, "lacks", "")
        why = f": {lacks}" if lacks else ""
        for rule in self._rules:
            needs = {
                Ability.HISTORY: ("keeps a history", rule.remembers),
                Ability.PRESENCE: ("has presence=True", rule.terms is not None),
            }
            for ability, (what, is_needed) in needs.items():
                if is_needed and ability not in broker.abilities:
                    raise SettingsError(
                        "room_rules",
                        rule.rules.pattern,
                        f"{what}, and {type(broker).__name__} has none{why}",
                    )

    def _rule_that_hides(self, pattern: str) -> Rule | None:
        """Return the rule by whose slow policy one of `slow_policies` is never used; None: it is used."""
        policies = self._core.registry.rooms.policies
        longer = [each for each in policies if each != pattern and covers(pattern, each)]
        for rule in self._rules:
            own = rule.rules.pattern
            if covers(own, pattern):
                return None if rule.slow_policy is None else rule
            is_open = rule.slow_policy is None and covers(pattern, own)
            if is_open and not any(covers(each, own) for each in longer):
                return None  # it is used in the rooms of this one
        return None


def takes_rules(
    make: Callable[Fields, RoomRules],
) -> Callable[
    [Callable[[Owner, RoomRules], RoomRules]], Callable[Concatenate[Owner, Fields], RoomRules]
]:
    """Let a method that takes a rule take instead what a rule is made of, which is written once."""

    def decorate(
        method: Callable[[Owner, RoomRules], RoomRules],
    ) -> Callable[Concatenate[Owner, Fields], RoomRules]:
        def with_fields(owner: Owner, /, *args: Fields.args, **kwargs: Fields.kwargs) -> RoomRules:
            return method(owner, make(*args, **kwargs))

        functools.update_wrapper(with_fields, method)
        return with_fields

    return decorate
