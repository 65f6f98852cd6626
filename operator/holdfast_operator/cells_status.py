"""The status of a HoldfastCells, from what the cells answered in this pass.

Nothing that grows by itself is shown exactly: an age is shown in coarse steps, so that a status that says the same is
not written again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.cells import Survey
from holdfast.cells.survey import SurveyedCell
from holdfast.status import for_people

from holdfast_operator import status
from holdfast_operator.kube import Object
from holdfast_operator.members import hex_id
from holdfast_operator.model.cells import CellsStatus, CellStatus, QueueStatus, ReplicationStatus, Where
from holdfast_operator.model.common import dump
from holdfast_operator.plan.cells import Act, Await, Change, Forget, Readmit, Refuse, SetUp, Step, counting
from holdfast_operator.resources.cells import Place

SHOWN_CHARACTERS = 300
_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Told:
    """Ready, as one of the cases that its message tells of."""

    holds: bool
    reason: str
    message: str
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass found. `wanted`: the cells of the spec. `version`: of the set that this object has; None: it has none
    yet. `failed`: why the step that is due failed; empty: it did not. `workers`: why the pods do not work as wanted;
    empty: they do. `now`: Unix milliseconds."""

    wanted: frozenset[str]
    where: Mapping[str, Where]
    places: Mapping[str, Place]
    survey: Survey
    version: int | None
    step: Step
    failed: str
    workers: str
    now: int


def cells_status(obj: Object, seen: Seen) -> Object:
    counts = counting(seen.survey)
    by_name = {found.cell: found for found in seen.survey.cells}
    cells = [_cell(seen, by_name[cell], cell in counts) for cell in seen.places]
    # Cells of another set that the spec does not name are not ours to show.
    queues = [
        QueueStatus(**{"from": queue.source}, to=queue.destination, waiting=queue.waiting, refused=queue.refused)
        for queue in seen.survey.queues
    ]
    copies = [
        ReplicationStatus(
            **{"from": found.source},
            to=found.destination,
            prefix=found.prefix.decode(errors="replace"),
            revision=found.reached,
            behind=found.behind,
        )
        for found in seen.survey.replications
    ]
    reachable = sum(cell.reachable for cell in cells)
    told = _told(seen, cells)
    quorum = seen.survey.set is not None and seen.survey.set.is_quorum(counts)
    available = "registers and leases work" if quorum else "registers and leases wait for a majority of the cells"
    return dump(
        CellsStatus(
            version=seen.version,
            cells=cells,
            queues=queues,
            replication=copies,
            reachable=f"{reachable}/{len(cells)}",
            oldestIntentSeconds=max((c.oldestIntentSeconds or 0 for c in cells), default=0),
            lag=sum(queue.waiting or 0 for queue in queues),
        )
    ) | {
        "conditions": [
            *status.ready(obj, told.holds, told.reason, told.message, progressing=not told.holds, stalled=told.stalled),
            status.condition(obj, "Available", quorum, "Majority" if quorum else "NoMajority", available),
            status.condition(
                obj,
                "Working",
                not seen.workers,
                "NotReady" if seen.workers else "AllReady",
                seen.workers or "the janitor, the couriers and the replicators run",
            ),
        ]
    }


def coarse(seconds: float) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … that is not below; 0 for nothing."""
    if seconds <= 0:
        return 0
    power = 1
    while True:
        for step in _STEPS:
            if seconds <= step * power:
                return step * power
        power *= 10


def one_line(error: object) -> str:
    """The text of an error, which the network may have made several lines of."""
    text = " ".join(for_people(str(error)).split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def _cell(seen: Seen, found: SurveyedCell, counts: bool) -> CellStatus:
    where = seen.where[found.cell]
    row = CellStatus(
        name=found.cell,
        reachable=not found.error,
        counts=counts,
        cluster=where.cluster,
        endpoints=where.endpoints,
        tls=where.tls,
        message=_message(seen, found, counts) or None,
    )
    if not found.error:
        open_ = found.transactions
        row.clusterID = hex_id(found.cluster_id)
        row.transactionsOpen = open_.prepared
        if open_.prepared and open_.oldest:
            row.oldestIntentSeconds = coarse((seen.now - open_.oldest) / 1000)
    return row


def _message(seen: Seen, found: SurveyedCell, counts: bool) -> str:
    """Why the cell does not answer or count; empty if it does."""
    if found.error:
        return one_line(found.error)
    if counts:
        return ""
    known = seen.survey.set
    if known is None or found.cell not in known.all:
        return "it is not in the set of cells yet" if found.cell in seen.wanted else "it has left the set of cells"
    if known.is_member(found.cell, found.cluster_id):
        return "it does not know the set of cells yet"
    return "its cluster is another one than that which was added"


def _told(seen: Seen, cells: Sequence[CellStatus]) -> Told:
    match seen.step:
        case Refuse(reason, message):
            return Told(False, reason, message, stalled=True)
        case Await(reason, message):
            return Told(False, reason, message)
        case SetUp() | Change() | Readmit() | Forget() as act:
            doing, reason = _words(act)
            if seen.failed:
                return Told(False, f"{reason}Failed", f"{doing}, which failed: {one_line(seen.failed)}")
            return Told(False, reason, doing)
    away = [cell for cell in cells if not cell.counts]
    if away:
        why = "; ".join(f"{cell.name} {_does_not(cell)}: {cell.message}" for cell in away)
        return Told(False, "CellAway", f"{why}; {_without(seen)}")
    if seen.workers:
        return Told(False, "NotWorking", seen.workers)
    return Told(True, "AllCount", f"all cells answer and count; version {seen.version} of the set")


def _does_not(cell: CellStatus) -> str:
    return "does not count" if cell.reachable else "does not answer"


def _without(seen: Seen) -> str:
    known = seen.survey.set
    if known is not None and known.is_quorum(counting(seen.survey)):
        return "the others are a majority, so registers and leases work"
    return "without a majority registers and leases wait"


def _words(act: Act) -> tuple[str, str]:
    """What is being done, and as a reason."""
    match act:
        case SetUp():
            return "the cells are set up", "SetUp"
        case Change(cells):
            return f"the set is changed to {', '.join(sorted(cells))}", "Change"
        case Readmit(cell):
            return f"{cell} is taken in again", "Readmit"
        case Forget(source, destination, prefix):
            return f"{destination} forgets that it has {prefix} from {source}", "Forget"
