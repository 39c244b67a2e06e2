"""The kept inputs of the fuzzer, played again; and the fuzzer's own tools."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest

from stress.differential import compare, core, idle_loop, native
from stress.fuzz_frames import (
    CORPUS,
    INSTRUMENTED,
    RESULTS,
    Counter,
    deflated,
    is_deflating,
    main,
    merge,
    mutated,
    pieces_of,
    seeds,
    told,
)

LARGEST_CORPUS_BYTES = 300 * 1024


def test_both_lanes_agree_on_every_kept_input() -> None:
    inputs = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    assert len(inputs) > 100
    assert sum(map(len, inputs)) < LARGEST_CORPUS_BYTES
    with idle_loop():
        for data in inputs:
            compare(*told(data))


def test_both_lanes_agree_on_changed_inputs() -> None:
    chance = random.Random(20261125)
    inputs = seeds()
    with idle_loop():
        for _ in range(3000):
            compare(*told(mutated(chance, inputs)))


def test_the_seeds_reach_every_kind_of_end() -> None:
    outcomes = [core(*told(data)) for data in seeds()]
    assert {outcome.code for outcome in outcomes} >= {None, 1000, 1002, 1007, 1009}
    assert any(outcome.pongs for outcome in outcomes)
    assert any(len(payload) == 250 for outcome in outcomes for _, payload in outcome.messages)


def test_only_the_lane_that_negotiated_it_takes_a_deflated_seed() -> None:
    recipe = b"\x80\xc1\x40\x05hello"
    pieces = pieces_of(recipe)
    assert pieces[0].endswith(deflated(b"hello"))
    with idle_loop():
        taken, refused = native(pieces, deflates=True), native(pieces)
    assert taken.messages == [(True, b"hello")]
    assert (refused.messages, refused.code) == ([], 1002)
    assert {is_deflating(recipe), is_deflating(recipe + b"\x00")} == {True, False}
    assert told(recipe) == (pieces, is_deflating(recipe))


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        (b"", []),
        (b"\x00abc", [b"abc"]),
        (b"\x01abc", [b"a", b"b", b"c"]),
        (b"\x02abcde", [b"ab", b"cd", b"e"]),
        (b"\x07abc", [b"a", b"bc"]),
        (b"\x80\x81\x00\x02hi", [b"\x81\x82\x00\x00\x00\x00hi"]),
        (b"\x80\x81\x0c\x02hi", [b"\x81\x02hi"]),
    ],
)
def test_an_input_says_what_is_sent_and_where_it_is_cut(data: bytes, pieces: list[bytes]) -> None:
    assert pieces_of(data) == pieces


def test_inputs_are_counted_and_differences_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "results" / "fuzz.json"
    monkeypatch.setattr("stress.fuzz_frames.RESULTS", kept)
    counter = Counter(is_kept=True)
    for _ in range(3):
        counter.run(lambda: None)
    counter.keep()

    def differs() -> None:
        raise AssertionError("they differ")

    with pytest.raises(AssertionError, match="they differ"):
        counter.run(differs)
    told = json.loads(kept.read_text())
    assert (told["inputs"], told["differences"]) == (4, 1)


def test_a_blind_run_ends_and_keeps_nothing_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stress.fuzz_frames.RESULTS", tmp_path / "fuzz.json")
    main(["--blind", "--runs", "200", "--random", "1", "--work", str(tmp_path)])
    assert not (tmp_path / "fuzz.json").exists()
    main(["--blind", "--runs", "100", "--random", "1", "--work", str(tmp_path), "--record"])
    assert json.loads((tmp_path / "fuzz.json").read_text())["inputs"] == 100


def test_the_kept_figures_say_that_nothing_differed() -> None:
    told = json.loads(RESULTS.read_text())
    assert told["differences"] == 0
    assert told["inputs"] > 0


@pytest.mark.parametrize("module", INSTRUMENTED)
def test_what_is_instrumented_exists(module: str) -> None:
    """A module of another name would be passed over in silence, and the fuzzer see no coverage."""
    assert importlib.util.find_spec(module) is not None


def test_what_a_guided_run_found_is_kept_once(tmp_path: Path) -> None:
    work, corpus = tmp_path / "work", tmp_path / "corpus"
    for folder in (work, corpus):
        folder.mkdir()
        (folder / "old").write_bytes(b"old")
    (work / "new").write_bytes(b"new")
    (work / "crash-1").write_bytes(b"a difference is a matter for a test of its own")
    assert merge(work, corpus) == 1
    assert merge(work, corpus) == 0
    assert {path.read_bytes() for path in corpus.iterdir()} == {b"old", b"new"}
