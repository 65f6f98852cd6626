"""The tester of staleness, for a short while; and the tester tested: replicas that claim too much are noticed."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

import pytest
from holdfast_lab.sim.violation import Violation
from holdfast_lab.staleness.run import staleness_test

pytestmark = pytest.mark.timeout(300)
READS, FAULTS = 4_000, 6

# The age counts from when a probe is answered, not from when it was sent.
FROM_THE_ANSWER = """
from holdfast.edge.follow import boot_ns
from holdfast.edge.probes import Probes

right = Probes.answered

def answered(self, id, revision):
    if id in self._sent:
        self._sent[id] = (boot_ns(), self._sent[id][1])
    right(self, id, revision)

Probes.answered = answered
"""
# A replica below is told what this one was told last, although it asked later.
BY_AN_OLD_PROBE = """
from holdfast.edge.probes import Probes

answered, confirm, greeted = Probes.answered, Probes.confirm, Probes.greeted
last = {}

def remember(self, id, revision):
    last[self] = revision
    answered(self, id, revision)

def recall(self, confirmed):
    if self in last:
        confirmed(last[self])
    else:
        confirm(self, confirmed)

Probes.answered, Probes.confirm = remember, recall
"""
# A read for which the data is not fresh enough is answered at once.
WITHOUT_WAITING = """
from holdfast.edge.service import EdgeApi

EdgeApi._when_fresh = lambda self, call, mode, work: work()
"""


async def test_no_answer_is_older_than_it_says_or_than_was_asked() -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    report = await staleness_test(READS, seed, faults=FAULTS)
    print(report)
    assert report.reads.answered.keys() == {"bounded", "at-least", "local"}
    assert report.behind > 0, "no answer was old, so nothing was checked"


@pytest.mark.parametrize(
    ("fault", "rules"),
    [(FROM_THE_ANSWER, {"S1", "S2"}), (BY_AN_OLD_PROBE, {"S1", "S2"}), (WITHOUT_WAITING, {"S1", "S3"})],
    ids=["from-the-answer", "by-an-old-probe", "without-waiting"],
)
async def test_replicas_that_claim_too_much_are_noticed(
    fault: str, rules: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(fault)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Violation) as found:
        await staleness_test(100_000, seed=1)
    assert found.value.name in rules
