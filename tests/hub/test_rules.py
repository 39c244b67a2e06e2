"""Rules: which rule a room has, and that finding it costs a bounded memory."""

from __future__ import annotations

import pytest

from exchange import Exchange, cluster
from hubbub import Hub, RoomRules, SettingsError
from hubbub.brokers.broker import Keep, PresenceTerms
from hubbub.hub import rules as rules_module
from hubbub.hub.core import core_of
from hubbub.hub.rules import LEASE_S, Rule, Rules

pytestmark = pytest.mark.anyio


def rules_of(*rules: RoomRules) -> Rules:
    return core_of(Hub(room_rules=rules)).rules


def test_the_first_rule_that_fits_counts() -> None:
    rules = rules_of(RoomRules("chat:vip", history=9), RoomRules("chat:*", history=5))
    kept = [rules.keep_of(room) for room in ("chat:vip", "chat:1", "game")]
    assert kept == [Keep(9, 3600.0, 1024**2), Keep(5, 3600.0, 1024**2), None]
    assert rules.has_any


def test_a_rule_says_all_that_is_kept_of_a_room() -> None:
    rules = rules_of(RoomRules("a", history=9, history_ttl_s=60.5, history_bytes=500))
    assert rules.keep_of("a") == Keep(9, 60.5, 500)


async def test_what_a_rule_says_bounds_a_room_in_its_broker() -> None:
    hub = Hub(room_rules=[RoomRules("a", history=9, history_bytes=25)])
    await hub.start()
    for number in range(5):
        await hub.publish("a", f"{number}" * 10)
    page = await hub.history("a")
    assert [each.data for each in page.publications] == [b"3" * 10, b"4" * 10]
    await hub.stop()


def test_a_rule_says_how_presence_is_kept_and_up_to_how_many_are_told() -> None:
    rules = rules_of(
        RoomRules("told", presence=True, join_leave=True, join_leave_max_members=7),
        RoomRules("quiet", presence=True, leave_grace_s=0.5),
        RoomRules("*", history=1),
    )
    assert rules.terms_of("told") == PresenceTerms(LEASE_S, 10.0, 7)
    assert rules.terms_of("quiet") == PresenceTerms(LEASE_S, 0.5, 0)
    assert rules.terms_of("other") is rules.terms_of("") is rules.terms_of("@ann") is None


def test_a_hub_without_rules_says_so() -> None:
    rules = rules_of()
    assert not rules.has_any
    rules.add(RoomRules("a"))
    assert rules.has_any
    assert rules.of("a") is not None


@pytest.mark.parametrize("room", ["", "@ann"])
def test_everybody_and_users_have_none(room: str) -> None:
    assert rules_of(RoomRules("*", history=5)).of(room) is None


def test_a_new_rule_counts_for_rooms_that_were_asked_for_before() -> None:
    rules = rules_of()
    assert rules.of("a") is None
    rules.add(RoomRules("a", history=1))
    assert rules.keep_of("a") is not None


def test_what_is_known_of_rooms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_module, "MOST_KNOWN", 3)
    rules = rules_of(RoomRules("a*", history=1))
    for number in range(50):
        assert rules.keep_of(f"a{number}") is not None
        assert rules.keep_of(f"b{number}") is None
        assert len(rules._known) <= 3


def test_a_rule_without_history_keeps_nothing_and_may_have_a_policy() -> None:
    rule = Rule(RoomRules("a", slow_policy="latest"))
    assert (rule.keep, rule.remembers, rule.slow_policy) == (None, False, "latest")


def test_a_rules_policy_comes_before_all_others() -> None:
    hub = Hub(room_rules=[RoomRules("a", slow_policy="latest")], slow_policies={"a": "drop_oldest"})
    rooms = core_of(hub).registry.rooms
    assert [rooms._new(room).policy for room in ("a", "b")] == ["latest", "disconnect"]


@pytest.mark.parametrize(("rule", "pattern"), [("a", "a"), ("a*", "a"), ("a*", "ab*"), ("*", "a")])
async def test_a_slow_policy_that_a_rule_hides_is_an_error_at_the_start(
    rule: str, pattern: str
) -> None:
    hub = Hub(
        room_rules=[RoomRules(rule, slow_policy="latest")], slow_policies={pattern: "drop_oldest"}
    )
    with pytest.raises(SettingsError, match=r"never used, since RoomRules.*leave one of them out"):
        await hub.start()


@pytest.mark.parametrize(
    ("rule", "pattern"),
    [("a", "a*"), ("a", "b"), ("ab*", "a*"), ("a*", "*"), ("*", "*"), ("*", "@*")],
)
async def test_a_slow_policy_of_other_rooms_than_a_rule_holds_beside_it(
    rule: str, pattern: str
) -> None:
    hub = Hub(
        room_rules=[RoomRules(rule, slow_policy="latest")], slow_policies={pattern: "drop_oldest"}
    )
    await hub.start()
    await hub.stop()
    same = Hub(room_rules=[RoomRules("a", slow_policy="latest")], slow_policies={"a": "latest"})
    await same.start()
    await same.stop()


async def test_a_slow_policy_that_an_earlier_rule_leaves_open_is_used() -> None:
    vip, rest = RoomRules("chat:vip", history=10), RoomRules("chat:*", slow_policy="drop_oldest")
    hub = Hub(room_rules=[vip, rest], slow_policies={"chat:*": "latest", "@@ann@x.org": "latest"})
    await hub.start()
    rooms = core_of(hub).registry.rooms
    assert [rooms._new(f"chat:{name}").policy for name in ("vip", "1")] == [
        "drop_oldest",  # for `latest`, which a room that remembers cannot have
        "drop_oldest",
    ]
    assert rooms._new("@@ann@x.org").policy == "latest"
    await hub.stop()
    closed = RoomRules("chat:vip", slow_policy="latest")
    hub = Hub(room_rules=[closed, rest], slow_policies={"chat:*": "disconnect"})
    with pytest.raises(SettingsError, match="never used"):
        await hub.start()


@pytest.mark.parametrize("longer", ["chat:vip", "chat:v*"])
async def test_a_slow_policy_for_whose_rest_a_longer_one_counts_is_never_used(longer: str) -> None:
    rules = [RoomRules("chat:vip"), RoomRules("chat:*", slow_policy="drop_oldest")]
    hub = Hub(room_rules=rules, slow_policies={"chat:*": "latest", longer: "drop_newest"})
    with pytest.raises(SettingsError, match="never used"):
        await hub.start()
    both = Hub(room_rules=rules, slow_policies={"chat:*": "latest", "chat:vip:*": "drop_newest"})
    with pytest.raises(SettingsError, match=r"'chat:vip:\*' is never used"):
        await both.start()
    open_rules = [RoomRules("chat:v*"), *rules[1:]]
    used = Hub(room_rules=open_rules, slow_policies={"chat:*": "latest", "chat:vip": "drop_newest"})
    await used.start()
    await used.stop()


async def test_a_hub_that_others_have_written_over_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = Exchange()
    async with cluster(exchange, 3, room_rules=[RoomRules("a", history=1)]) as (one, other, bare):
        one_rules, other_rules = core_of(one).rules, core_of(other).rules
        await one_rules.share()
        await other_rules.share()
        assert caplog.records == [], "they have the same"
        core_of(bare).rules._rules.clear()
        await core_of(bare).rules.share()
        for _ in range(3):
            await one_rules.share()
            assert exchange.notes == {"room_rules": b'[{"pattern": "a", "history": 1}]'}
            await core_of(bare).rules.share()
    told = [record.getMessage() for record in caplog.records if "other room_rules" in record.msg]
    assert len(told) == 2
    assert told[0].endswith("The others are none")
    assert told[1].endswith('The others are [{"pattern": "a", "history": 1}]')
