"""The tester of power cuts at replicas, for a short while; and the tester tested."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import SystemRandom

import pytest
from holdfast_lab.powercuts.run import cut_again_and_again
from holdfast_lab.sim.violation import Violation

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler"),
]
CUTS = 15

# The position is written first, and the data a little later, in a batch of its own.
POSITION_FIRST = """
import time
from holdfast.kv.store import Family, Pending

def flush(self):
    batch = [(family, key, value) for family in Family for key, value in self._writes[family].items()]
    for position in (True, False):
        part = [write for write in batch if (write[0] is Family.META) is position]
        if part:
            self.store.apply(part)
            time.sleep(0.02)
    for writes in self._writes:
        writes.clear()

Pending.flush = flush
"""


async def test_a_replica_shows_what_was_true_after_power_cuts() -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = await cut_again_and_again(CUTS, seed)
    print(report)
    assert report.undone > 0
    assert report.keys > 0


async def test_a_position_that_is_not_written_with_its_data_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(POSITION_FIRST)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Violation, match="P2"):
        await cut_again_and_again(500, seed=1)
