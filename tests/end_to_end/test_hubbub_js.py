"""hubbub.js: its Node tests, its size, and that it agrees with errors.py, its types and its guide.

Over the wire rooms.js is tried too, which comes back by the same rules.

What must not live here: the tests of its behaviour, which are written in JavaScript (js).
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hubbub.errors import _REFUSALS, CLOSE_CODES, RECONNECT_RANGES, should_come_back
from node import run_node
from places import ROOT, SOURCE, TESTS
from refusing import ROWS, RefusingServer, attempts_of
from stress.ports import free_port

JS = TESTS / "end_to_end" / "js"
STATIC = SOURCE / "static"
SCRIPT = (STATIC / "hubbub.js").read_text("utf-8")
TYPES = (STATIC / "hubbub.d.ts").read_text("utf-8")
GUIDE = (ROOT / "docs" / "javascript.md").read_text("utf-8")
SCRIPTS = {path.name.removesuffix(".test.mjs"): path for path in JS.glob("*.test.mjs")}
MAX_GZIPPED_BYTES = 4500


def ask_hubbub_js(expression: str) -> Any:
    """Evaluate a JavaScript expression at the end of hubbub.js, through JSON."""
    program = f"{SCRIPT}\nconsole.log(JSON.stringify({expression}));"
    return json.loads(run_node("--input-type=module", "-", program=program))


def block(text: str, opening: str) -> str:
    """Return what stands between the line that begins with `opening` and its closing brace."""
    match = re.search(rf"^( *){re.escape(opening)}[^\n]*\{{\n(.*?)^\1\}}", text, re.M | re.S)
    assert match, f"no block {opening!r}"
    return match[2]


def defaults() -> dict[str, str]:
    """Return the options of hubbub.js and their defaults, as written there."""
    return dict(re.findall(r"^    (\w+): (.+),$", block(SCRIPT, "#options = "), re.M))


def events() -> list[str]:
    """Return the names of the events of hubbub.js."""
    match = re.search(r"^const EVENTS = (\[.*\]);$", SCRIPT, re.M)
    assert match
    return list(json.loads(match[1]))


def test_scripts_are_known() -> None:
    assert set(SCRIPTS) == {"handshake", "messages", "page", "reconnect", "refusals"}


def run_script(name: str) -> None:
    """Run one file of js; it fails in node, and here, if one of its tests fails."""
    printed = run_node("--test", "--test-reporter=tap", str(SCRIPTS[name]))
    assert re.search(r"^# pass [1-9]", printed, re.M), printed
    assert re.search(r"^# (skipped|todo) [1-9]", printed, re.M) is None, printed


@pytest.mark.parametrize("script", ["handshake", "messages", "page", "refusals"])
def test_s11_browser_client(script: str) -> None:
    run_script(script)


def test_s12_reconnection() -> None:
    run_script("reconnect")


def test_close_codes_agree_with_errors() -> None:
    codes = range(1000, 5000)
    answers = ask_hubbub_js("Array.from({length: 4000}, (_, i) => shouldComeBack(1000 + i))")
    different = [
        code
        for code, answer in zip(codes, answers, strict=True)
        if answer != should_come_back(code)
    ]
    assert different == []


def test_rows_of_closes_agree_with_errors() -> None:
    codes = [row["code"] for row in ROWS["closes"]]
    edges = {code for first, last, _ in RECONNECT_RANGES for code in (first, last)}
    assert codes == sorted({row.code for row in CLOSE_CODES} | edges)
    for row in ROWS["closes"]:
        assert row["comes_back"] is should_come_back(row["code"]), row


def test_rows_of_refusals_are_right() -> None:
    statuses = [row["status"] for row in ROWS["refusals"]]
    assert statuses == sorted(set(statuses))
    assert set(_REFUSALS) <= set(statuses), "every status that the hub refuses with has a row"
    for row in ROWS["refusals"]:
        assert row["comes_back"] or not row["gives_up"], row


ATTEMPTS = 7
"""How many attempts a row is looked at: more than it takes to give up."""


BOTH = pytest.mark.parametrize("module", ["hubbub.js", "rooms.js"])


def try_out(module: str, urls: list[str], attempts: int) -> dict[str, Any]:
    """Let a client in Node try every URL over real connections; see js/wire.mjs."""
    program = JS / "wire.mjs"
    found = json.loads(run_node(str(program), str(STATIC / module), str(attempts), *urls))
    assert set(found) == set(urls)
    return dict(found)


@BOTH
def test_fault_11_every_refusal_over_the_wire(module: str) -> None:
    with RefusingServer() as server:
        rows = {f"{server.url}/refuse/{row['status']}": row for row in ROWS["refusals"]}
        for url, found in try_out(module, [*rows], ATTEMPTS).items():
            row = rows[url]
            assert found["attempts"] == attempts_of(row, ATTEMPTS), url
            path = url.removeprefix(server.url)
            assert server.handshakes[path] == found["attempts"]
            reasons = {close["reason"] for close in found["closes"]}
            assert len(reasons) == 1
            assert reasons != {""}, "each attempt says why it failed"
            if found["attempts"] < ATTEMPTS:
                assert found["stopped"]["code"] == row["status"], url
                assert {found["stopped"]["reason"]} == reasons
            else:
                assert found["stopped"] is None, url


@BOTH
def test_fault_11_what_was_open_once_gives_up_late(module: str) -> None:
    was_open = ROWS["gives_up_after"]["was_open"]
    with RefusingServer() as server:
        url = f"{server.url}/once/404"
        found = try_out(module, [url], 10 * was_open)[url]
    assert (found["attempts"], found["stopped"]["code"]) == (1 + was_open, 404)


@BOTH
def test_every_close_code_over_the_wire(module: str) -> None:
    with RefusingServer() as server:
        rows = {f"{server.url}/close/{row['code']}": row for row in ROWS["closes"]}
        for url, found in try_out(module, [*rows], 2).items():
            row = rows[url]
            assert found["attempts"] == attempts_of(row, 2), url
            assert found["closes"][0]["code"] == (1006 if row["code"] == 1015 else row["code"])
            # To rooms.js a connection is open when the server has said who it is, which this one never does.
            assert found["closes"][0]["opened"] is (module == "hubbub.js"), url
            assert (found["stopped"] is None) is row["comes_back"], url


@BOTH
def test_every_failure_over_the_wire(module: str) -> None:
    causes = {row["cause"] for row in ROWS["failures"] if row["comes_back"]}
    assert causes == {"nobody_listens", "no_answer", "ends_early", "not_http", "wire_cut"}
    with RefusingServer() as server:
        urls = [f"{server.url}/fail/{cause}" for cause in causes - {"nobody_listens"}]
        for found in try_out(module, [*urls, f"ws://127.0.0.1:{free_port()}/"], ATTEMPTS).values():
            assert (found["attempts"], found["stopped"]) == (ATTEMPTS, None)


def test_size_gzipped() -> None:
    assert len(gzip.compress(SCRIPT.encode(), 9, mtime=0)) < MAX_GZIPPED_BYTES


def test_nothing_is_imported_or_printed() -> None:
    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(", SCRIPT, re.M)
    assert "console" not in SCRIPT


def test_types_name_every_export() -> None:
    exported = set(re.findall(r"^export (?:const|class|function) (\w+)", SCRIPT, re.M))
    declared = set(re.findall(r"^export declare (?:const|class|function) (\w+)", TYPES, re.M))
    assert exported == declared == {"Hubbub", "shouldComeBack"}


def test_types_name_every_member() -> None:
    members = set(ask_hubbub_js("Object.getOwnPropertyNames(Hubbub.prototype)"))
    declared = re.findall(
        r"^  (?:readonly )?(\w+)(?:<.*>)?[(:]", block(TYPES, "export declare class Hubbub"), re.M
    )
    assert members == set(declared)


def test_types_name_every_option_and_event() -> None:
    options = re.findall(r"^  (\w+)\?:", block(TYPES, "export interface HubbubOptions"), re.M)
    assert options == list(defaults())
    declared = re.findall(r"^  (\w+): \[", block(TYPES, "export interface HubbubEvents"), re.M)
    assert declared == events()


def test_defaults_are_written_as_they_are() -> None:
    numbers = {name: value for name, value in defaults().items() if value.isdigit()}
    assert len(numbers) >= 6
    for name, value in numbers.items():
        assert re.search(rf"Default: {value}\. \*/\n  {name}\?:", TYPES), name
        assert re.search(rf"^\| `{name}` \| {value} \|", GUIDE, re.M), name


def test_guide_names_everything() -> None:
    members = set(ask_hubbub_js("Object.getOwnPropertyNames(Hubbub.prototype)")) - {"constructor"}
    for name in members:
        assert re.search(rf"`hub\.{name}\b", GUIDE), name
    for name in [*defaults(), *events(), "shouldComeBack"]:
        assert f"`{name}" in GUIDE, name


def test_examples_of_the_guide_are_javascript(tmp_path: Path) -> None:
    examples = re.findall(r"^```js\n(.*?)^```", GUIDE, re.M | re.S)
    assert len(examples) >= 5
    for number, example in enumerate(examples):
        script = tmp_path / f"example{number}.mjs"
        script.write_text(example, "utf-8")
        run_node("--check", str(script))
