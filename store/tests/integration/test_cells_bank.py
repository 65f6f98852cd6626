"""The bank of several clusters, for a short while; and the tester tested: cells that forget who holds a key."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

import pytest
from holdfast_lab.cells.bank.homeless import stop_at_each_step
from holdfast_lab.cells.bank.run import Plan, run_bank
from holdfast_lab.sim.violation import Violation

pytestmark = pytest.mark.timeout(180)
DECIDED_BY_ONE = 5  # the step: a single cell, which stays, has accepted the outcome

# A part is prepared although another transaction holds its keys.
WITHOUT_INTENTS = """
from holdfast.cells.part_wire import INTENTS
from holdfast.client.client import Client

right = Client.commit

async def commit(self, request, **more):
    if any(op.request_put.key.startswith(INTENTS) for op in request.success):
        for compare in [c for c in request.compare if c.key.startswith(INTENTS)]:
            request.compare.remove(compare)
    return await right(self, request, **more)

Client.commit = commit
"""


async def test_the_sum_of_all_accounts_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast_lab.cells.bank.run.COORDINATOR_SECONDS", 1.0)
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = await run_bank(Plan(seconds=5, voters=1, workers=3, seed=seed, least=20), tmp_path)
    print(report)
    assert report.made >= 20


async def test_a_coordinator_that_is_killed_holds_nobody_up(tmp_path: Path) -> None:
    """The time that it takes is not checked here."""
    await stop_at_each_step(tmp_path, cells=3, voters=1, steps=[DECIDED_BY_ONE], most=60)


async def test_cells_that_forget_who_holds_a_key_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_INTENTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plan = Plan(seconds=60, voters=1, accounts=4, workers=2, settle_seconds=3)
    with pytest.raises(Violation, match=r"B[1234]"):
        await run_bank(plan, tmp_path)
