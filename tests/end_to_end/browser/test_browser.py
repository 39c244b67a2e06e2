"""The demo, and hubbub.js, in Chromium: what a person would try by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from end_to_end.browser.processes import ServerProcess
from end_to_end.browser.visiting import (
    MARKUP,
    Open,
    connected,
    expect_said,
    expect_unharmed,
    say,
    shoot,
)
from places import ROOT

PAGES = ["websocket", "chat", "channels", "notifications", "live", "game", "monitor"]


def test_two_pages_chat_both_ways(demo: ServerProcess, visit: Open, complaints: list[str]) -> None:
    ann = connected(visit(f"{demo.url}/websocket?username=ann"))
    bob = connected(visit(f"{demo.url}/websocket?username=bob", color_scheme="dark"))
    expect(ann.locator("#online li")).to_have_text(["ann", "bob"])
    say(ann, "good morning")
    expect_said(bob, "ann", "good morning")
    bob.fill("#text", "the same to you: always")
    bob.press("#text", "Enter")
    expect_said(ann, "bob", "the same to you: always")
    expect(bob.locator("#log .bubble.mine")).to_have_count(1)
    expect(bob.locator("#text")).to_have_value("")
    say(ann, MARKUP)
    expect_said(bob, "ann", MARKUP)
    expect_unharmed(bob)
    shoot(ann, "websocket-light")
    shoot(bob, "websocket-dark")
    bob.close()
    expect(ann.locator("#online li")).to_have_text(["ann"])
    assert complaints == []


def test_a_room_is_left_for_another(demo: ServerProcess, visit: Open) -> None:
    ann = connected(visit(f"{demo.url}/websocket?username=ann"))
    bob = connected(visit(f"{demo.url}/websocket?username=bob"))
    ann.click("[data-room=garden]")
    expect(ann.locator("[data-room=garden]")).to_have_attribute("aria-pressed", "true")
    expect(bob.locator("#online li")).to_have_text(["bob"])
    say(bob, "is nobody here?")
    expect_said(bob, "bob", "is nobody here?")
    bob.click("[data-room=garden]")
    expect(bob.locator("#online li")).to_have_text(["ann", "bob"])
    say(bob, "there you are")
    expect_said(ann, "bob", "there you are")
    expect(ann.locator("#log .bubble")).to_have_count(1)


def test_s11_send_is_disabled_while_offline(demo: ServerProcess, visit: Open) -> None:
    """The names of DMMVC's page: open, message, close, and `sendMessage` only when open."""
    page = connected(visit(f"{demo.url}/websocket?username=ann"))
    expect(page.locator("#send")).to_be_enabled()
    page.context.set_offline(True)
    page.click("#cut")
    expect(page.locator("#wire")).to_have_attribute("data-state", "waiting")
    expect(page.locator("#send")).to_be_disabled()
    page.fill("#text", "into the void")
    page.press("#text", "Enter")
    expect(page.locator("#text")).to_have_value("into the void")
    page.context.set_offline(False)
    connected(page)
    page.press("#text", "Enter")
    expect_said(page, "ann", "into the void")
    expect(page.locator("#log .bubble")).to_have_count(1)


def test_s12_a_cut_wire_shows_the_wait_and_comes_back(demo: ServerProcess, visit: Open) -> None:
    page = connected(visit(f"{demo.url}/websocket?username=ann&room=lobby"))
    page.click("#cut")
    expect(page.locator("#wire")).to_have_attribute("data-state", "waiting")
    expect(page.locator("#state")).to_contain_text("back in")
    expect(page.locator("#fact-state")).to_contain_text("waiting")
    shoot(page, "websocket-waiting")
    connected(page)
    expect(page.locator("#fact-returns")).to_have_text("once")
    expect(page.locator("#fact-name")).to_have_text("ann")
    expect(page.locator("#log .note").last).to_contain_text("Connected again after")
    page.click("#cut")
    page.click("#again")
    connected(page)
    expect(page.locator("#fact-returns")).to_have_text("2 times")
    traced = page.locator("#trace li").evaluate_all("items => items.map(i => i.dataset.state)")
    assert traced[-4:] == ["lost", "waiting", "connecting", "open"]


def test_s12_both_pages_come_back_after_the_server_was_killed(tmp_path: Path, visit: Open) -> None:
    with ServerProcess("hubbub.demo.app:app", tmp_path / "server.log") as server:
        ann = connected(visit(f"{server.url}/websocket?username=ann"))
        bob = connected(visit(f"{server.url}/websocket"))
        name = bob.locator("#fact-name").inner_text()
        say(ann, "before")
        expect_said(bob, "ann", "before")
        server.kill()
        for page in (ann, bob):
            expect(page.locator("#wire")).not_to_have_attribute("data-state", "open")
            expect(page.locator("#send")).to_be_disabled()
        server.start()
        for page in (ann, bob):
            expect(page.locator("#wire")).to_have_attribute("data-state", "open", timeout=30_000)
        say(bob, "after")
        expect_said(ann, name, "after")
        say(ann, "welcome back")
        expect_said(bob, "ann", "welcome back")
        expect(ann.locator("#online-count")).to_have_text("2")


def test_a_wrong_token_stops_the_client_and_says_why(tmp_path: Path, visit: Open) -> None:
    folder = ROOT / "examples"
    with ServerProcess("auth:app", tmp_path / "server.log", folder) as server:
        right = visit(f"{server.url}/?token=ann-secret")
        expect(right.locator("#log li")).to_have_text(["You are ann"])
        wrong = visit(f"{server.url}/?token=wrong")
        expect(wrong.locator("#state")).to_have_text("stopped: 401 This token is not valid")
    answers = (tmp_path / "server.log").read_text().count('" 401')
    assert answers == 2, "one socket, one question why, and no further attempt"


def test_s08_chat_announces_join_and_leave(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    ann = connected(visit(f"{demo.url}/chat?username=ann"))
    bob = connected(visit(f"{demo.url}/chat?username=bob"))
    expect(ann.locator("#log .note").last).to_contain_text("bob joined the chat")
    for page in (ann, bob):
        expect(page.locator("#here li")).to_have_text(["ann", "bob"])
        expect(page.locator("#here-count")).to_have_text("2")
    say(bob, MARKUP)
    expect_said(ann, "bob", MARKUP)
    expect_unharmed(ann)
    bob.fill("#username", "<b>Bob</b>")
    bob.press("#username", "Enter")
    expect(ann.locator("#log .note").last).to_contain_text("<b>Bob</b> joined the chat")
    expect(ann.locator("#here li")).to_have_text(["<b>Bob</b>", "ann"], timeout=20_000)
    say(bob, "same man, new name")
    expect_said(ann, "<b>Bob</b>", "same man, new name")
    bob.close()
    expect(ann.locator("#log .note").last).to_contain_text("<b>Bob</b> left the chat")
    shoot(ann, "chat")
    assert complaints == []


def test_a_line_that_is_too_long_is_not_sent(demo: ServerProcess, visit: Open) -> None:
    page = connected(visit(f"{demo.url}/chat?username=ann"))
    long = "ä" * 300
    page.fill("#text", long)
    expect(page.locator("#bytes")).to_have_text("600 of 512 bytes")
    page.click("#send")
    expect(page.locator("#text")).to_have_value(long)
    expect(page.locator("#wire")).to_have_attribute("data-state", "open")
    say(page, "ä" * 256)
    expect_said(page, "ann", "ä" * 256)


def test_s09_a_notification_is_published_and_shown(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    one = connected(visit(f"{demo.url}/notifications"))
    other = connected(visit(f"{demo.url}/notifications"))
    one.select_option("#type", "warning")
    one.fill("#message", MARKUP)
    one.click("#publish button")
    expect(one.locator("#result")).to_contain_text("Delivered to")
    newest = other.locator("#notifications li").first
    expect(newest.locator(".text")).to_have_text(MARKUP)
    expect(newest.locator(".kind")).to_have_text("warning")
    assert "T" in (newest.locator("time").get_attribute("datetime") or "")
    expect_unharmed(other)
    one.click("[data-sample=error]")
    expect(newest.locator(".kind")).to_have_text("error")
    shoot(other, "notifications")
    assert complaints == []


def test_s10_live_data_is_drawn(demo: ServerProcess, visit: Open, complaints: list[str]) -> None:
    page = connected(visit(f"{demo.url}/live"))
    line = page.locator("#chart path.line").first
    expect(line).to_be_attached()
    before = line.get_attribute("d") or ""
    expect(line).not_to_have_attribute("d", before)
    expect(page.locator("#chart path.line")).to_have_count(3)
    expect(page.locator(".tile-value").first).to_contain_text(".")
    shoot(page, "live")
    assert complaints == []


THEIR_PLACE = "parseFloat(document.querySelector('.dot:not(.me)').style.left)"


def place_of(page: Page, dot: str) -> float:
    """Return how far from the left a dot is, in percent."""
    return float(page.locator(dot).evaluate("dot => parseFloat(dot.style.left)"))


def test_s21_a_dot_moves_on_the_other_page(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    ann = connected(visit(f"{demo.url}/game"))
    bob = connected(visit(f"{demo.url}/game"))
    expect(ann.locator(".dot")).to_have_count(2)
    ann.click("#arena", position={"x": 10, "y": 10})
    mine = place_of(ann, ".dot.me")
    bob.wait_for_function(f"left => Math.abs({THEIR_PLACE} - left) < 0.01", arg=mine)
    ann.keyboard.press("ArrowRight")
    bob.wait_for_function(f"left => {THEIR_PLACE} > left + 1", arg=mine)
    shoot(ann, "game")
    bob.click(".tab[data-arena=attic]")
    expect(ann.locator(".dot")).to_have_count(1)
    expect(ann.locator("#player-count")).to_have_text("1")
    assert complaints == []


def test_s22_the_monitor_draws_four_charts(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    page = connected(visit(f"{demo.url}/monitor"))
    expect(page.locator(".chart path.line")).to_have_count(6)
    expect(page.locator("[data-meter=clients] .reading b")).to_have_text("1")
    page.click("#noise")
    expect(page.locator("#noise-count")).to_have_text("500 received.")
    expect(page.locator("[data-meter=memory] .reading")).to_contain_text("MiB")
    shoot(page, "monitor")
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(
    demo: ServerProcess, visit: Open, complaints: list[str], scheme: str
) -> None:
    phone = {"width": 375, "height": 720}
    page = visit(f"{demo.url}/", viewport=phone, color_scheme=scheme, has_touch=True)
    for name in PAGES:
        page.click(f'nav a[href="/{name}"]')
        expect(page).to_have_url(f"{demo.url}/{name}")
        connected(page)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= phone["width"], f"{name} is {width} pixels wide"
        shoot(page, f"phone-{scheme}-{name}")
    assert complaints == []


def test_fault_30_the_navigation_of_a_phone_is_one_row(demo: ServerProcess, visit: Open) -> None:
    """At 390 pixels all of it is seen; on what is narrower it can be swept."""
    for width in (390, 320):
        page = visit(f"{demo.url}/", viewport={"width": width, "height": 780}, has_touch=True)
        for name in PAGES:
            page.goto(f"{demo.url}/{name}")
            boxes = page.locator("nav a").evaluate_all(
                "links => links.map((a) => { const b = a.getBoundingClientRect();"
                " return [b.top, b.left, b.right, b.height]; })"
            )
            assert len({top for top, *_ in boxes}) == 1, f"{name} wraps at {width}"
            assert all(height >= 32 for *_, height in boxes)
            if width == 390:
                assert all(left >= 0 and right <= width for _, left, right, _ in boxes)
            here = page.locator("nav a[aria-current]").bounding_box()
            assert here is not None
            assert here["x"] >= 0
            assert here["x"] + here["width"] <= width
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        shoot(page, f"phone-{width}")


def test_fault_30_each_line_says_in_which_room_it_was_said(
    demo: ServerProcess, visit: Open, complaints: list[str]
) -> None:
    ann = connected(visit(f"{demo.url}/websocket?username=ann"))
    for room in ("lobby", "kitchen", "garden"):
        ann.click(f"[data-room={room}]")
        expect(ann.locator(f"[data-room={room}]")).to_have_attribute("aria-pressed", "true")
        say(ann, f"said in the {room}")
        expect(ann.locator("#log .bubble .text").last).to_have_text(f"said in the {room}")
    expect(ann.locator("#log .bubble .room")).to_have_text(["lobby", "kitchen", "garden"])
    shoot(ann, "websocket-rooms")
    assert complaints == []


def test_fault_29_a_name_forges_no_message_on_the_other_page(
    demo: ServerProcess, visit: Open
) -> None:
    name, text = '{"type"', '"online","count":99,"names":[]}'
    ann = connected(visit(f"{demo.url}/websocket?username=ann"))
    liar = connected(visit(f"{demo.url}/websocket?username={quote(name)}"))
    say(liar, text)
    expect(ann.locator("#log .bubble .name")).to_contain_text(name)
    expect(ann.locator("#log .bubble .text")).to_have_text(text)
    expect(ann.locator("#online-count")).to_have_text("2")


CHART = """
async (script) => {
  const { LineChart } = await import("/static/js/chart.js");
  const box = document.createElement("div");
  box.style.cssText = "width: 600px; height: 200px";
  document.body.append(box);
  const chart = new LineChart(box, { everyS: 2, leastS: 40, limitS: 180 });
  const at = (second) => new Date(Date.UTC(2026, 0, 1, 12, 0, second)).toISOString();
  const point = (second) => ({ time: at(second), values: [second % 7] });
  const seen = [];
  const look = () => {
    const labels = [...box.querySelectorAll("text.time")];
    seen.push({
      labels: labels.map((label) => [label.textContent, Number(label.getAttribute("x"))]),
      path: box.querySelector("path.line")?.getAttribute("d") ?? "",
      points: chart.points.length,
    });
  };
  for (const [verb, seconds] of script) {
    if (verb === "merge") chart.merge(seconds.map(point));
    else for (const second of seconds) chart.push(point(second));
    look();
  }
  return seen;
}
"""


def chart(page: Page, *script: tuple[str, list[int]]) -> list[dict[str, Any]]:
    """Draw a chart in steps; return what it shows after each."""
    seen: list[dict[str, Any]] = page.evaluate(CHART, script)
    return seen


def test_fault_30_the_time_axis_of_a_chart_is_time(demo: ServerProcess, visit: Open) -> None:
    """A pause is as wide as it was long, the line is interrupted in it, and labels tell the truth."""
    page = visit(f"{demo.url}/live", timezone_id="UTC", locale="en-GB")
    before = list(range(0, 40, 2))
    after = list(range(100, 140, 2))
    first, paused, gone = chart(
        page, ("merge", before), ("push", after), ("push", list(range(1000, 1010, 2)))
    )
    assert [label for label, _ in first["labels"]] == ["12:00:10", "12:00:20", "12:00:30"]
    assert first["path"].count("M") == 1
    assert [label for label, _ in paused["labels"]] == [
        "12:00:30",
        "12:01:00",
        "12:01:30",
        "12:02:00",
    ]
    places = [x for _, x in paused["labels"]]
    gaps = {round(right - left, 1) for left, right in itertools.pairwise(places)}
    assert gaps == {round((600 - 44 - 12) * 30 / 138, 1)}, "thirty of 138 seconds each"
    assert paused["path"].count("M") == 2
    ends = [float(run.split("L")[-1].split()[0]) for run in paused["path"].split("M")[1:]]
    starts = [float(run.split()[0]) for run in paused["path"].split("M")[1:]]
    assert starts[1] - ends[0] == pytest.approx((600 - 44 - 12) * 62 / 138, abs=0.2)
    assert gone["points"] == 5, "what is older than the chart is wide is forgotten"
    assert gone["path"].count("M") == 1


def test_fault_30_a_chart_keeps_what_a_server_that_was_restarted_has_forgotten(
    demo: ServerProcess, visit: Open
) -> None:
    page = visit(f"{demo.url}/live")
    *_, empty, later = chart(
        page, ("push", [0, 2, 4]), ("merge", [2, 4, 6]), ("merge", []), ("merge", [60, 62])
    )
    assert empty["points"] == 4
    assert later["points"] == 6
    assert later["path"].count("M") == 2


def restart(server: ServerProcess, *pages: Page) -> None:
    """Kill the server, start it again, and wait for the pages to come back.

    Being online ends their delays, which may have grown to many seconds.
    """
    server.kill()
    for page in pages:
        expect(page.locator("#wire")).not_to_have_attribute("data-state", "open")
    server.start()
    for page in pages:
        page.evaluate("dispatchEvent(new Event('online'))")
    for page in pages:
        expect(page.locator("#wire")).to_have_attribute("data-state", "open", timeout=30_000)


def test_fault_30_a_restart_of_the_server_wipes_no_page(
    tmp_path: Path, visit: Open, complaints: list[str]
) -> None:
    with ServerProcess("hubbub.demo.app:app", tmp_path / "server.log") as server:
        chat = connected(visit(f"{server.url}/chat?username=ann"))
        board = connected(visit(f"{server.url}/notifications"))
        rooms = connected(visit(f"{server.url}/websocket?username=ann"))
        live = connected(visit(f"{server.url}/live"))
        say(chat, "before the restart")
        say(rooms, "before the restart")
        board.click("[data-sample=warning]")
        expect(board.locator("#notifications .notification")).to_have_count(1)
        expect(live.locator("#count")).to_have_text("2")
        restart(server, chat, board, rooms, live)
        for page in (chat, board, rooms, live):
            expect(page.locator("#restarted")).to_contain_text("The server restarted at about")
        say(chat, "after it")
        expect_said(chat, "ann", "after it")
        texts = chat.locator("#log li").all_inner_texts()
        what = ["joined", "before the restart", "The server restarted.", "joined", "after it"]
        assert [word in text for word, text in zip(what, texts, strict=True)] == [True] * 5, texts
        board.click("[data-sample=error]")
        expect(board.locator("#notifications .notification .kind")).to_have_text(
            ["error", "warning"]
        )
        expect(board.locator("#notifications li").nth(1)).to_contain_text("The server restarted.")
        expect(board.locator("#count")).to_have_text("2")
        expect(rooms.locator("#log .bubble")).to_have_count(1)
        expect(rooms.locator("#log .note", has_text="The server restarted.")).to_have_count(1)
        expect(live.locator("#count")).not_to_have_text("1")
        shoot(chat, "chat-restarted")
        shoot(board, "notifications-restarted")
    assert [text for text in complaints if "ERR_CONNECTION_REFUSED" not in text] == []


def test_a_return_to_the_same_server_shows_no_line_twice(demo: ServerProcess, visit: Open) -> None:
    ann = connected(visit(f"{demo.url}/chat?username=ann"))
    bob = connected(visit(f"{demo.url}/chat?username=bob"))
    say(ann, "heard by both")
    expect_said(bob, "ann", "heard by both")
    bob.context.set_offline(True)
    bob.click("#cut")
    expect(bob.locator("#wire")).to_have_attribute("data-state", "waiting")
    say(ann, "said meanwhile")
    bob.context.set_offline(False)
    connected(bob)
    expect(bob.locator("#log .text", has_text="said meanwhile")).to_have_count(1)
    expect(bob.locator("#log .text", has_text="heard by both")).to_have_count(1)
    expect(bob.locator("#restarted")).to_be_hidden()


SQUEEZED_APP = """
from fastapi import FastAPI

from hubbub import Hub

hub = Hub(compression="shared", max_message_bytes=100_000)
app = FastAPI()
app.include_router(hub.router("/ws"))


@hub.on_message
def said(client, text: str):
    client.send({"got": text, "stats": hub.stats()})
"""

TALK = """
async (url) => {
  const socket = new WebSocket(url);
  await new Promise((resolve) => (socket.onopen = resolve));
  const ask = (text) => new Promise((resolve) => {
    socket.onmessage = (event) => resolve(JSON.parse(event.data));
    socket.send(text);
  });
  const texts = ["short", "all work and no play ".repeat(4000), "", "\\u00e9".repeat(500)];
  const answers = [];
  for (const text of texts) answers.push((await ask(text)).got === text);
  return [socket.extensions, answers, (await ask("")).stats.bytes_out];
}
"""


def test_a_browser_talks_to_a_hub_that_compresses(tmp_path: Path, visit: Open) -> None:
    (tmp_path / "squeezed.py").write_text(SQUEEZED_APP)
    with ServerProcess("squeezed:app", tmp_path / "server.log", tmp_path) as server:
        page = visit(f"{server.url}/ws/hubbub.js")
        found = page.evaluate(TALK, server.url.replace("http", "ws") + "/ws")
    extensions, answers, bytes_out = found
    assert extensions.startswith("permessage-deflate")
    assert answers == [True] * 4
    assert bytes_out < 5000


@pytest.mark.parametrize("page", PAGES)
def test_a_name_of_markup_is_text_on_every_page(
    demo: ServerProcess, visit: Open, complaints: list[str], page: str
) -> None:
    watcher = connected(visit(f"{demo.url}/{page}"))
    liar = connected(visit(f"{demo.url}/{page}?username={quote(MARKUP)}"))
    for one in (watcher, liar):
        expect_unharmed(one)
        assert one.locator("img[src='x'], body [onerror]").count() == 0
    assert complaints == []
