"""rooms.js in Node and in Chromium: the scenarios of the npm SDK on the same server, its size and its types.

What must not live here: a page as a visitor has it (browser/test_rooms), the SDKs (test_centrifuge_sdks).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from centrifuge_app import make_app, make_hub
from end_to_end.playing import COMES_BACK, JS, ROOMS, STAYS_AWAY, Player, Scenario, of, run_node
from hubbub import Hub
from hubbub.dialects.centrifuge import CENTRIFUGE
from places import ROOT, SOURCE
from serving import Served, serve

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

STATIC = SOURCE / "static"
SCRIPT = (STATIC / "rooms.js").read_text("utf-8")
TYPES = (STATIC / "rooms.d.ts").read_text("utf-8")
GUIDE = (ROOT / "docs" / "rooms-js.md").read_text("utf-8")
MAX_GZIPPED_BYTES = 5000


@pytest.fixture(params=["native", "portable"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Hub, Served]]:
    hub = make_hub()
    async with serve(make_app(hub), native=request.param == "native") as server:
        yield hub, server


@pytest.fixture
def play(served: tuple[Hub, Served], player: Player) -> Scenario:
    """Give what plays a scenario and returns what happened."""
    return lambda name: player(ROOMS, served[1], name)


async def test_it_recovers_what_it_missed(play: Scenario) -> None:
    events = await play("recovery")
    publications = [[number, number] for number in range(1, 7)]
    assert [event[1:] for event in of(events, "publication")] == publications
    recovered = [[False, False], [True, True], [True, True]]
    assert [event[1:] for event in of(events, "subscribed")] == recovered
    assert of(events, "gap", "error") == []


async def test_it_is_never_given_what_it_was_excluded_from(play: Scenario) -> None:
    events = await play("excluded")
    assert [event[1:] for event in of(events, "publication")] == [[n, n] for n in (1, 3, 5, 7)]
    recovered = [[False, False], *[[True, True]] * 3]
    assert [event[1:] for event in of(events, "subscribed")] == recovered
    assert of(events, "gap") == []


async def test_it_is_told_that_something_is_lost(play: Scenario) -> None:
    events = await play("lost")
    assert of(events, "publication") == [["publication", 1, 1], ["publication", 7, 7]]
    assert [event[1:] for event in of(events, "subscribed")] == [[False, False], [True, False]]
    assert of(events, "gap") == [["gap", 6]]


async def test_all_its_rooms_come_in_one_message(play: Scenario) -> None:
    events = await play("several")
    assert len(of(events, "subscribed")) == 8
    assert of(events, "publication")[-1] == ["publication", "in a room without history", None]
    assert of(events, "error", "unsubscribed") == []
    assert events[-1] == ["lines", 5, 5]


async def test_more_rooms_than_a_message_may_have(play: Scenario) -> None:
    events = await play("many")
    assert events[-1] == ["ready", 120]
    assert len(of(events, "close")) == 1


async def test_the_newest_of_a_state(play: Scenario) -> None:
    events = await play("newest")
    assert of(events, "publication") == [["publication", "new", 2]]


async def test_commands(play: Scenario) -> None:
    events = await play("commands")
    found = {event[0]: event[1:] for event in events}
    assert found["publish"] == [None]
    assert found["publish elsewhere failed"] == [103, False]
    assert found["publish nothing failed"] == [107, False]
    assert found["publish a number failed"] == [None, None], "a TypeError of JSON"
    assert found["history"] == [[[{"text": "é\n"}, 1]]]
    assert found["page"] == [[2, 3]]
    assert found["newest"] == [[4]]
    assert found["all"] == [4]
    assert found["position"] == [4]
    assert found["other epoch failed"] == [112, False]
    assert found["no history failed"] == [108, False]
    assert found["call"] == [{"sum": 6}]
    assert found["call of text"] == ["42"]
    assert found["call with nonsense failed"] == [107, False]
    assert found["call of nobody failed"] == [104, False]
    assert found["call that fails failed"] == [450, False]
    assert found["presence failed"][0] == 108
    assert found["sent"] == [True]
    assert found["message"] == [{"type": "welcome", "to": "eve"}]
    assert found["meta"] == [[{"from": "a test"}]]
    assert of(events, "unsubscribed") == [["unsubscribed", 0], ["unsubscribed", 103]]
    assert found["too late failed"] == [3, False]
    assert of(events, "close", "stop") == [["close", 1000, "", False], ["stop", 1000, ""]]


async def test_it_stays_away_when_it_is_refused(play: Scenario) -> None:
    events = await play("refused")
    why = [101, "the token is not valid"]
    assert events == [["close", *why, False], ["stop", *why]]


async def test_it_asks_for_a_new_token_when_its_own_has_expired(
    play: Scenario,
) -> None:
    events = await play("expired")
    assert events[:3] == [
        ["close", 109, "the token has expired", True],
        ["open"],
        ["asked", 1],
    ]


async def test_an_expired_token_without_another_is_the_end(play: Scenario) -> None:
    events = await play("hopeless")
    assert events[-1] == ["stop", 109, "the token has expired"]


async def test_a_token_is_asked_for_again_when_that_fails(play: Scenario) -> None:
    events = await play("token")
    assert [event[0] for event in events] == ["error", "close", "open", "asked"]
    assert events[-1] == ["asked", 2]


async def test_it_refreshes_its_token(play: Scenario) -> None:
    events = await play("refresh")
    assert events == [["open"], ["asked", 2], ["call", {"sum": 3}], ["state", "open"]]


async def test_it_stays_away_when_its_new_token_is_refused(play: Scenario) -> None:
    events = await play("unwelcome")
    assert [event[:2] for event in events] == [["open"], ["close", 3500], ["stop", 3500]]


async def test_it_sees_who_is_there(play: Scenario) -> None:
    events = await play("presence")
    assert of(events, "users") == [["users", ["lea", "max"], True], ["users", ["lea"], True]]
    assert of(events, "publication", "message", "error") == [], "joins and leaves are no messages"


async def test_it_is_told_who_published(play: Scenario) -> None:
    events = await play("publishers")
    ann = {"name": "Ann"}
    assert of(events, "by") == [
        ["by", 1, "ann", ann],
        ["by", 2, "bob", None],
        ["by", 3, None, None],
    ]
    assert of(events, "kept") == [["kept", ["ann", "bob", None]]]
    assert of(events, "there") == [["there", ann, None]]


async def test_messages_are_whole_since_it_asks_for_no_patches(play: Scenario) -> None:
    events = await play("whole")
    assert of(events, "publication") == [["publication", n, n] for n in range(1, 6)]
    assert of(events, "asked for patches", "patches") == [
        ["asked for patches", False],
        ["patches", 0],
    ]


async def test_it_subscribes_again_after_a_gap_or_an_end_and_not_after_a_leave(
    play: Scenario,
) -> None:
    events = await play("taken")
    assert events == [
        ["subscribing"],
        ["open"],
        ["subscribed", False, False],
        ["subscribing"],
        ["subscribed", True, True],
        ["subscribing"],
        ["subscribed", True, True],
        ["unsubscribed", 2000],
        ["state", "open"],
    ]


async def test_it_stays_while_pings_come_and_leaves_when_they_stop(
    play: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.dialects.centrifuge_events.PING_INTERVAL_S", 1.0)
    monkeypatch.setattr(CENTRIFUGE, "ping_interval_s", 1.0)
    events = await play("pings")
    assert events == [
        ["open"],
        ["state", "open"],
        ["close", 1006, "no ping", True],
        ["open"],
    ]


async def test_a_client_is_told_of_its_own_rooms_whether_it_has_all(
    play: Scenario,
) -> None:
    events = await play("assigned")
    assert of(events, "room") == [["room", "chat:own"], ["room", "short:own"]]
    told = [event[1:] for event in of(events, "subscribed")]
    assert told == [[False, False]] * 2 + [[True, True]] * 3 + [[True, False]]
    publications = [event[1:] for event in of(events, "publication")]
    assert publications == [[1, 1], [2, 2], [3, 3], ["a", 1]]
    assert of(events, "gap") == [["gap", 6]]


async def test_rooms_that_the_server_gives(play: Scenario) -> None:
    events = await play("given")
    assert of(events, "room") == [["room", "chat:given"]]
    assert [event[1:] for event in of(events, "publication")] == [[1, 1], [2, 2]]
    assert of(events, "message") == [["message", {"only": "you"}]]
    assert events[-1] == ["unsubscribed", 2000]


async def test_it_comes_back_when_its_time_in_a_room_that_was_given_ends(play: Scenario) -> None:
    events = await play("ended")
    assert of(events, "close", "stop") == [["close", 3006, "subscription expired", True]]
    assert [event[1:] for event in of(events, "publication")] == [[1, 1], [2, 2], [3, 3]]
    assert of(events, "room", "unsubscribed", "gap") == [["room", "chat:given"]]


async def test_codes_say_whether_to_come_back(play: Scenario) -> None:
    events = await play("codes")
    came_back = [["close", code, "because", True] for code in COMES_BACK]
    stayed_away = [["close", code, "because", False] for code in STAYS_AWAY]
    assert of(events, "close") == came_back + stayed_away
    assert of(events, "stop") == [["stop", code, "because"] for code in STAYS_AWAY]
    assert of(events, "state") == [["state", "closed"]] * len(STAYS_AWAY)


async def test_a_room_that_needs_a_token_is_refused_and_the_page_is_told(play: Scenario) -> None:
    events = await play("tokens")
    refused = [
        ["subscribing"],
        ["error", 103],
        ["unsubscribed", 103],
        ["told", 103, "join is not allowed in this room"],
    ]
    assert of(events, "subscribing", "subscribed", "error", "unsubscribed", "told") == refused * 2
    assert of(events, "state") == [["state", "unsubscribed", "open"]], "the connection stays"
    failed = [["publish failed", 103, False], ["history failed", 103, False]]
    assert of(events, "publish failed", "history failed") == failed
    assert len(of(events, "call")) == 2, "it is not asked for again after a cut"
    assert of(events, "publication", "stop") == []


async def test_a_command_that_is_too_long_closes_the_connection(play: Scenario) -> None:
    events = await play("too_long")
    assert ["publish failed", 2, False] in events
    assert [event[1] for event in of(events, "close")] == [1009]


async def test_a_listener_may_leave_and_enter_again(play: Scenario) -> None:
    events = await play("entered_again")
    expected = [["publication", number, number] for number in range(1, 10)]
    assert of(events, "publication") == expected


async def test_everything_once_and_in_order_whatever_is_cut(play: Scenario) -> None:
    events = await play("cuts")
    expected = [["publication", number, number] for number in range(1, 101)]
    assert of(events, "publication") == expected
    assert of(events, "gap", "error", "stop") == []
    assert events[-1] == ["cut", True]


def test_size_gzipped() -> None:
    assert len(gzip.compress(SCRIPT.encode(), 9, mtime=0)) < MAX_GZIPPED_BYTES


def members(kind: str) -> set[str]:
    """Return the names of the members of a class of rooms.js, but for its constructor."""
    body = re.search(rf"^(?:export )?class {kind} .*?^}}", SCRIPT, re.M | re.S)
    assert body
    listed = re.findall(r"^  (?:async |get )?(\w+)\(.*\{$", body[0], re.M)
    return set(listed) - {"constructor"} | {"on"}


def declared(kind: str) -> str:
    body = re.search(rf"^export (?:declare class|interface) {kind}\b.*?^}}", TYPES, re.M | re.S)
    assert body
    return body[0]


@pytest.mark.parametrize(("kind", "variable"), [("Rooms", "rooms"), ("Room", "room")])
def test_types_and_guide_name_every_member(kind: str, variable: str) -> None:
    named = re.findall(r"^  (?:readonly )?(\w+)(?:<.*>)?[(:]", declared(kind), re.M)
    assert members(kind) == set(named) - {"constructor"}
    for name in members(kind):
        assert re.search(rf"`{variable}\.{name}\b", GUIDE), name


@pytest.mark.parametrize("kind", ["Rooms", "Room"])
def test_types_and_guide_name_every_event(kind: str) -> None:
    lists = re.findall(r"super\((\[.*\])\);$", SCRIPT, re.M)
    events = json.loads(lists[["Room", "Rooms"].index(kind)])
    assert re.findall(r"^  (\w+): \[", declared(f"{kind}Events"), re.M) == events
    for event in events:
        assert re.search(rf"^\| `{event}` \|", GUIDE, re.M), event


def test_types_and_guide_name_every_default() -> None:
    (numbers,) = re.findall(r"const numbers = \{ (.*) \};", SCRIPT)
    for name, value in (each.split(": ") for each in numbers.split(", ")):
        assert re.search(rf"Default: {value}\. \*/\n  {name}\?:", TYPES), name
        assert re.search(rf"^\| `{name}` \| {value} \|", GUIDE, re.M), name


async def test_examples_of_the_guide_are_javascript(tmp_path: Path) -> None:
    examples = re.findall(r"^```js\n(.*?)^```", GUIDE, re.M | re.S)
    assert len(examples) >= 3
    for number, example in enumerate(examples):
        script = tmp_path / f"example{number}.mjs"
        script.write_text(example, "utf-8")
        await run_node("--check", str(script))


async def test_servers_that_do_what_a_hub_rarely_does() -> None:
    printed = await run_node("--test", "--test-reporter=tap", str(JS / "rooms_alone.mjs"))
    assert re.search(r"^# pass [1-9]", printed, re.M), printed
    assert re.search(r"^# (skipped|todo) [1-9]", printed, re.M) is None, printed
