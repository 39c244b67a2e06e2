"""Every page: its links lead somewhere, what it names exists, what it promises is so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from hubbub import Close, Hub, HubNotRunning
from hubbub.settings import rows
from hubbub.testing import connect, settle
from pages import IDS, PAGES, targets
from places import ROOT


def in_a_loop_of_its_own(call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    asyncio.run(call())


def test_fault_32_design_names_the_verbs_that_any_thread_may_call() -> None:
    """Each of them works from a thread; the one that waits for a receipt says where it belongs."""
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    row = next(line for line in design.splitlines() if line.startswith("| threads |"))
    anywhere, _, rest = row.partition("may be called from any thread")
    names = re.findall(r"`(\w+)`", anywhere)
    assert names == ["broadcast", "send", "close"]
    assert re.findall(r"`(\w+)`", rest) == ["publish", "HubNotRunning"]

    async def scenario() -> None:
        hub = Hub()
        async with hub.lifespan():
            peer = connect(hub, user="ann")
            hub.room("red").broadcast("nobody")
            peer.client.join("red")
            verbs: dict[str, list[Callable[[], object]]] = {
                "broadcast": [
                    lambda: hub.broadcast("1"),
                    lambda: hub.room("red").broadcast("2"),
                    lambda: hub.everybody.broadcast("3"),
                ],
                "send": [lambda: hub.to_user("ann").send("4"), lambda: peer.client.send("5")],
                "close": [lambda: peer.client.close(4000, "enough")],
            }
            for name in names:
                for call in verbs[name]:
                    await anyio.to_thread.run_sync(call)
            receipts: list[Callable[[], Coroutine[Any, Any, object]]] = [
                lambda: hub.publish("red", "x"),
                lambda: hub.room("red").publish("x"),
                lambda: hub.everybody.publish("x"),
            ]
            for publish in receipts:
                with pytest.raises(HubNotRunning, match="event loop"):
                    await anyio.to_thread.run_sync(in_a_loop_of_its_own, publish)
            await settle(hub)
            assert peer.received == ["1", "2", "3", "4", "5"]
            assert peer.closed == Close(4000, "enough", by_server=True)

    anyio.run(scenario)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} leads nowhere"
        assert ROOT in there.parents, f"{target} leaves the repository"
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in targets(index)}
    assert set((ROOT / "docs").rglob("*.md")) - {index} <= linked


def test_no_page_names_a_path_of_somebody_s_machine() -> None:
    paths = re.compile(r"(?<![\w.])/(?:home|Users|root|work|tmp|opt|farm)/\w")
    for page in PAGES:
        found = paths.search(page.read_text(encoding="utf-8"))
        assert found is None, f"{page.name}: {found}"


def test_every_setting_that_the_text_names_exists() -> None:
    known = {row.name for row in rows()} | {row.env for row in rows()}
    known |= {"slow_policies", "broker", "HUBBUB_"}
    known |= {"HUBBUB_SERVICE_HOST", "HUBBUB_PORT"}  # Kubernetes makes them
    pattern = re.compile(r"\b(?:HUBBUB_[A-Z_]+|Hub\((\w+)=)")
    for page in PAGES:
        for found in pattern.finditer(page.read_text(encoding="utf-8")):
            name = found[1] or found[0]
            assert name in known, f"{page.name}: {name}"


def test_a_hub_can_be_awaited_in_no_example_by_accident() -> None:
    """`hub.broadcast` is not a coroutine: an `await` before it in an example would be an error."""

    async def scenario() -> None:
        hub = Hub()
        async with hub.lifespan():
            assert hub.broadcast("x") is None  # type: ignore[func-returns-value]

    anyio.run(scenario)
    for page in PAGES:
        assert "await hub.broadcast" not in page.read_text(encoding="utf-8"), page.name
