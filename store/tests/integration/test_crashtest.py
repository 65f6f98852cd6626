"""The crash tester, for a short while: real servers, every fault, judged by the simulator's checker."""

from __future__ import annotations

import shutil
import sys
from random import SystemRandom

import pytest
from holdfast.crash.run import crash_test

SECONDS = 40.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("members", [3])
async def test_nothing_acknowledged_is_lost(members: int) -> None:
    sys.setrecursionlimit(100_000)
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    compiler = shutil.which("cc") or shutil.which("gcc")
    report = await crash_test(SECONDS, members, seed, power_cuts=compiler is not None, keep=None)
    print(report)
    assert report.operations["done"] > 500
    assert sum(report.faults.values()) >= 5
