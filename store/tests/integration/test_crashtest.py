"""The crash tester, for a short while: real servers, every fault, judged by the simulator's checker."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import pytest
from holdfast_lab.crash.run import crash_test
from holdfast_lab.sim.violation import Violation

SECONDS = 40.0


@pytest.fixture
def deep() -> Iterator[None]:
    """The search for an order recurses once for each write of unknown outcome. Other tests need the usual limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.usefixtures("deep")
@pytest.mark.timeout(300)
async def test_nothing_acknowledged_is_lost() -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    compiler = shutil.which("cc") or shutil.which("gcc")
    report = await crash_test(SECONDS, 3, seed, power_cuts=compiler is not None, keep=None)
    print(report)
    assert report.operations["done"] > 500
    assert sum(report.faults.values()) >= 5


@pytest.mark.timeout(300)
async def test_a_log_that_is_not_synced_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tester tested: servers whose fdatasync does nothing lose in a power cut what they have acknowledged."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler, so no power to cut")
    (tmp_path / "sitecustomize.py").write_text("import os\nos.fdatasync = lambda fd: None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def cut_power_again_and_again() -> None:
        for seed in range(5):
            await crash_test(15.0, 3, seed, power_cuts=True, keep=None, only=["power cut", "power cut everywhere"])

    with pytest.raises(Violation):
        await cut_power_again_and_again()


@pytest.mark.timeout(300)
async def test_a_member_with_a_damaged_file_refuses_and_is_replaced_or_comes_back_right() -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = await crash_test(20.0, 3, seed, power_cuts=False, keep=None, only=["file damaged"])
    print(report)
    assert report.faults["file damaged"] >= 1
