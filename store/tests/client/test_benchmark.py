"""The pure parts of `make bench-client`: figures, and what a load program is told."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_a_percentile_is_one_of_the_values(part: Any) -> None:
    percentile = part("clients.figures").percentile
    assert math.isnan(percentile([], 0.5))
    assert percentile([7.0], 0.99) == 7.0
    hundred = [float(n) for n in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.0, 0.5, 0.99, 0.999, 1.0)] == [1, 50, 99, 100, 100]


def test_shares_and_their_imbalance(part: Any) -> None:
    figures = part("clients.figures")
    assert figures.shares({"a": 1, "b": 3}) == {"a": 0.25, "b": 0.75}
    assert figures.shares({"a": 0, "b": 0}) == {"a": 0.0, "b": 0.0}
    assert figures.imbalance({"a": 80, "b": 100, "c": 120}) == pytest.approx(0.2)
    assert figures.imbalance({"a": 300, "b": 0, "c": 0}) == pytest.approx(2.0)
    assert figures.imbalance({"a": 0}) == 0.0


def test_a_watch_is_deaf_from_a_commit_to_its_event(part: Any) -> None:
    committed = {"1": 10.0, "2": 11.0, "3": 12.0}
    prompt = [("1", 9.9), ("2", 11.1), ("3", 12.2)]  # the first before its acknowledgement
    frozen = [("1", 10.1), ("2", 14.5), ("3", 14.5)]
    lost = [("1", 10.0), ("3", 12.0)]
    longest, missing = part("clients.figures").deafness(committed, [prompt, frozen, lost, []])
    assert longest == pytest.approx([0.2, 3.5, 0.0, 0.0])
    assert missing == 1 + 3


def test_a_load_program_understands_what_it_is_told(part: Any) -> None:
    protocol = part("clients.protocol")
    options = protocol.Options(["127.0.0.1:1", "127.0.0.1:2"], 250.0, 1.5, 30, 12, True, False, 3.0)
    assert protocol.parse(options.words()) == options
    with pytest.raises(SystemExit):
        protocol.parse(["--endpoints=a:1", "--rate=1", "--seconds=1", "--hedge=perhaps"])


def test_what_was_recorded_is_read_back(part: Any) -> None:
    protocol = part("clients.protocol")
    found = protocol.Recorded([(1.0, 0.5)], [(2.0, "no answer")], 0.1, 3, 0.2, [[("1", 4.0)], []])
    assert protocol.recorded(found.text()) == found


def test_the_options_of_the_command(part: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = part("client").options
    assert (options([]).rate, options([]).seconds) == (1000.0, 60.0)
    assert options(["--only=slow,cache"]).only == ["slow", "cache"]
    for wrong in ("--only=cash", "--rate=0", "--seconds=nan"):
        with pytest.raises(SystemExit):
            options([wrong])
    assert "write some of frozen, slow, balance, hedging, cache" in capsys.readouterr().err
