"""Messages between two clusters, a few thousand; and the tester tested: a destination that does not count."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

import pytest
from holdfast_lab.cells.handoffs.run import Plan, run_handoffs
from holdfast_lab.sim.violation import Violation

pytestmark = pytest.mark.timeout(180)

# A message is carried out without a look at which one was the last.
WITHOUT_COUNTING = """
from holdfast.client.client import Client

right = Client.commit

async def commit(self, request, **more):
    if any(op.request_put.key.startswith(b"/cells/inbox/") for op in request.success):
        del request.compare[:]
    return await right(self, request, **more)

Client.commit = commit
"""


async def test_each_message_is_carried_out_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast_lab.cells.handoffs.run.PROGRAM_SECONDS", 0.7)
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = await run_handoffs(Plan(messages=3_000, kill=True, voters=1, seed=seed), tmp_path)
    print(report)
    assert report.transactions < 3_000


async def test_a_destination_that_does_not_count_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_COUNTING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Violation, match="Q1"):
        await run_handoffs(Plan(messages=100_000, voters=1), tmp_path)
