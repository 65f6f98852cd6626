"""Minimizes a failing run: fewer classes of fault, less time, and the end of its trace as text."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_lab.sim.mix import CLASSES
from holdfast_lab.sim.runner import Failure, attempt, name_of
from holdfast_lab.sim.simulation import FAILURES
from holdfast_lab.sim.subject import MEMBERS, SUBJECTS, Runnable


@dataclass(slots=True)
class Shrunk:
    """The smallest run found that still fails in the same way, and the last lines of its trace."""

    seed: int
    seconds: int
    without: list[str]
    name: str
    what: str
    trace: list[str]
    of: str = MEMBERS

    @property
    def command(self) -> str:
        without = f" --without {','.join(self.without)}" if self.without else ""
        return f"{SUBJECTS[self.of].command} --seed {self.seed} --seconds {self.seconds}{without} --trace"


def shrink(failure: Failure, of: str = MEMBERS) -> Shrunk:
    """Leave out one class of fault after the other, then cut the time after the failure."""
    without: list[str] = []
    for name in CLASSES:
        if _fails(failure, 0, [*without, name], of):
            without.append(name)
    error, run = trace(failure.seed, 0, without, of=of)
    seconds = max(1, run.world.now // 1_000_000_000 + 1)
    if _fails(failure, seconds, without, of):
        error, run = trace(failure.seed, seconds, without, of=of)
    else:
        seconds = 0
    what = str(error) if error is not None else failure.what
    return Shrunk(failure.seed, seconds, without, failure.name, what, list(run.world.tail), of)


def trace(
    seed: int, seconds: int, without: list[str], keep: int = 400, of: str = MEMBERS
) -> tuple[BaseException | None, Runnable]:
    """Run again and keep the last `keep` lines (0 = all) of the trace. Returns the failure and the run."""
    run = SUBJECTS[of].make(seed, seconds=seconds, without=without, keep_trace=keep)
    try:
        run.run()
    except FAILURES as error:
        run.world.note(f"{name_of(error)}: {error}")
        return error, run
    return None, run


def _fails(failure: Failure, seconds: int, without: list[str], of: str) -> bool:
    outcome = attempt(failure.seed, seconds, without, of)
    return isinstance(outcome, Failure) and outcome.name == failure.name
