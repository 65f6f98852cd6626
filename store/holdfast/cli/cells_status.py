"""What `holdfast cells status` prints: the set, a row for each cell, for each queue, and for each replication."""

from __future__ import annotations

import time

from holdfast.cells import Survey
from holdfast.cells.cell_set import CellSet
from holdfast.cells.replication_record import shown
from holdfast.cells.survey import SurveyedCell, SurveyedQueue, SurveyedReplication
from holdfast.cli.cells_reach import one_line
from holdfast.cli.session import as_json, table, text

_CELLS = ["CELL", "STATE", "IN SET", "CLUSTER", "VERSION", "OPEN", "OLDEST", "OUTCOMES"]
_QUEUES = ["SOURCE", "DESTINATION", "SENT", "ARRIVED", "WAITING", "REFUSED"]
_REPLICATIONS = ["SOURCE", "DESTINATION", "PREFIX", "REACHED", "BEHIND"]


def show(survey: Survey, output: str) -> None:
    now = time.time_ns() // 1_000_000
    if output == "json":
        as_json(as_object(survey, now))
        return
    print(f"set: {set_line(survey.set) if survey.set is not None else 'no cell that answers is set up'}\n")
    table(_CELLS, [_cell_row(survey, cell, now) for cell in survey.cells])
    if survey.queues:
        print()
        table(_QUEUES, [_queue_row(queue) for queue in survey.queues])
    if survey.replications:
        print()
        table(_REPLICATIONS, [_replication_row(replication) for replication in survey.replications])


def set_line(cells: CellSet) -> str:
    changes = f"; it changes to {', '.join(sorted(cells.after))}" if cells.after else ""
    return f"{', '.join(sorted(cells.cells))} (version {cells.version}){changes}"


def why_no_quorum(survey: Survey) -> str:
    if survey.set is None:
        return "no cell that answers is set up; `holdfast cells init` sets them up"
    silent = survey.set.all - {found.cell for found in survey.cells if found.counts}
    return f"too few cells answer for a quorum: without {', '.join(sorted(silent))}"


def as_object(survey: Survey, now: int) -> dict[str, object]:
    """`now`: in milliseconds of Unix time."""
    cells = survey.set
    return {
        "quorum": survey.quorum,
        "set": None
        if cells is None
        else {"version": cells.version, "cells": sorted(cells.cells), "after": sorted(cells.after)},
        "cells": [_cell_object(survey, cell, now) for cell in survey.cells],
        "queues": [
            {
                "source": queue.source,
                "destination": queue.destination,
                "sent": queue.sent,
                "arrived": queue.arrived,
                "waiting": queue.waiting,
                "refused": queue.refused,
            }
            for queue in survey.queues
        ],
        "replications": [
            {
                "source": replication.source,
                "destination": replication.destination,
                "prefix": shown(replication.prefix),
                "reached": replication.reached,
                "behind": replication.behind,
            }
            for replication in survey.replications
        ],
    }


def _cell_object(survey: Survey, found: SurveyedCell, now: int) -> dict[str, object]:
    row: dict[str, object] = {
        "cell": found.cell,
        "state": _state(found),
        "counts": found.counts and survey.in_set(found.cell),
        "in_set": survey.in_set(found.cell),
    }
    if found.error:
        return row
    open_ = found.transactions
    return row | {
        "cluster": f"{found.cluster_id:x}",
        "set_up_as": f"{found.identity.cluster_id:x}" if found.identity is not None else None,
        "version": found.identity.set.version if found.identity is not None else None,
        "open": open_.prepared,
        "oldest_seconds": max(0, now - open_.oldest) / 1000 if open_.oldest else None,
        "outcomes": open_.outcomes,
    }


def _state(found: SurveyedCell) -> str:
    if found.error:
        return one_line(found.error)
    if found.identity is None:
        return "not set up"
    if found.identity.cell != found.cell:
        return f"does not count: it is the cell {found.identity.cell}"
    return "restored: does not count" if found.restored else "answers"


def _cell_row(survey: Survey, found: SurveyedCell, now: int) -> list[object]:
    in_set = "yes" if survey.in_set(found.cell) else "no"
    if found.error:
        return [found.cell, _state(found), in_set, *("" for _ in _CELLS[3:])]
    identity, open_ = found.identity, found.transactions
    was = f", was {identity.cluster_id:x}" if identity is not None and found.restored else ""
    return [
        found.cell,
        _state(found),
        in_set,
        f"{found.cluster_id:x}{was}",
        identity.set.version if identity is not None else "",
        open_.prepared,
        _age(open_.oldest, now) if open_.prepared else "",
        open_.outcomes,
    ]


def _age(begun: int, now: int) -> str:
    return f"{max(0, now - begun) / 1000:.1f} s" if begun else "unknown"


def _queue_row(queue: SurveyedQueue) -> list[object]:
    numbers = (queue.sent, queue.arrived, queue.waiting, queue.refused)
    return [queue.source, queue.destination, *("unknown" if number is None else number for number in numbers)]


def _replication_row(found: SurveyedReplication) -> list[object]:
    reached = found.reached or "filling"
    behind = "unknown" if found.behind is None else found.behind
    return [found.source, found.destination, text(found.prefix), reached, behind]
