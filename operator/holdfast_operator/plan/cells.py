"""What is to be done next about a set of cells. Pure: from the spec, and from what the cells answered.

| The clusters that answer | What is done |
|---|---|
| none is a cell, and all answer | they are set up |
| none is a cell, and one does not answer | wait: it may be a cell of another set |
| one knows another set | nothing, ever: the user has to say what is meant |
| they are a set that no operator has changed for this object | nothing, unless it is just the set that the spec names |
| they are a set, and the spec names another one, or a change of it is not complete | the set is changed |
| one of the set is another cluster than that which was added | nothing, until the user has confirmed its cluster id |
| the set is as wanted, and a cell knows a copy that the spec has no more | it forgets that; the keys stay |

Invariant: a cluster that belongs to another set gets no request that writes. Two sets are the same one, at different
times, if they have a cluster in common, because a cluster belongs to one set at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass

from holdfast.cells import Survey
from holdfast.cells.cell_set import CellSet
from holdfast.cells.survey import SurveyedCell


@dataclass(frozen=True, slots=True)
class SetUp:
    pass


@dataclass(frozen=True, slots=True)
class Change:
    cells: frozenset[str]


@dataclass(frozen=True, slots=True)
class Readmit:
    cell: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Of a prefix that is to be copied from another cell now, or is the cell's own."""

    source: str
    destination: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Await:
    """The operator goes on by itself when this is over."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The user has to act."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The set is as wanted."""


Act = SetUp | Change | Readmit | Forget
Step = Act | Await | Refuse | Settled


def plan(
    wanted: frozenset[str], placed: Set[str], survey: Survey, *, managed: bool, readmit: Mapping[str, int]
) -> Step:
    """`placed`: all cells whose place is known, also of those that leave. `managed`: this object had the set before.
    `readmit`: by cell, the id of the cluster that is confirmed."""
    asked = {found.cell: found for found in survey.cells}
    silent = sorted(cell for cell in wanted if asked[cell].error)
    if survey.set is None:
        return _set_up(wanted, asked, silent)
    known, now = survey.set, survey.set.after or survey.set.cells
    strange = _of_another_set(asked, known)
    if strange:
        return Refuse("OtherSet", strange)
    if known.all - placed:
        cells = _names(known.all - placed)
        return Refuse(
            "OtherSet",
            f"the clusters are a set with {cells} already (version {known.version}), and spec.cells does not say where "
            f"that is: add {cells} to spec.cells; it can be taken out afterwards",
        )
    if not managed and now != wanted:
        return Refuse(
            "OtherSet",
            f"the clusters are the set {_names(now)} already (version {known.version}): name just these in "
            "spec.cells; the set can be changed afterwards",
        )
    returning = sorted(cell for cell in wanted if _is_confirmed(asked[cell], known, readmit))
    if returning and not known.after:
        return Readmit(returning[0])
    if known.after or known.cells != wanted or any(_does_not_know(asked[cell], known) for cell in wanted):
        return Change(wanted)
    return _restored([asked[cell] for cell in sorted(wanted)], known) or Settled()


def stale(copies: Collection[Forget], survey: Survey) -> Forget | None:
    """What the cells know of a copy that the spec has no more. `copies`: those that it has."""
    for found in survey.replications:
        known = Forget(found.source, found.destination, found.prefix.decode(errors="replace"))
        if known not in copies:
            return known
    return None


def counting(survey: Survey) -> frozenset[str]:
    """The cells whose answers count: they belong to the set, as the cluster that was added."""
    known = survey.set
    return frozenset(
        found.cell
        for found in survey.cells
        if known is not None and found.counts and known.is_member(found.cell, found.cluster_id)
    )


def _set_up(wanted: Set[str], asked: Mapping[str, SurveyedCell], silent: list[str]) -> Step:
    for cell in sorted(wanted):
        identity = asked[cell].identity
        if identity is not None:
            return Refuse(
                "OtherSet",
                f"{cell} is set up already, as the cell {identity.cell} of {_names(identity.set.all)}"
                + (", with another cluster id: it was restored" if asked[cell].restored else ""),
            )
    if silent:
        why = "; ".join(f"{cell}: {asked[cell].error}" for cell in silent)
        return Await("WaitingForCells", f"all cells have to answer before they are set up ({why})")
    return SetUp()


def _of_another_set(asked: Mapping[str, SurveyedCell], known: CellSet) -> str:
    """What is wrong if a cluster is a cell of another set, or another cell of this one; empty if none is."""
    for cell, found in sorted(asked.items()):
        identity = found.identity
        if found.error or identity is None:
            continue
        if identity.cell != cell:
            return f"{cell} is set up already, as the cell {identity.cell} of {_names(identity.set.all)}"
        if not identity.set.same_as(known):
            return (
                f"{cell} knows the set {_names(identity.set.all)}, and others the set {_names(known.all)}, which have "
                "no cluster in common: name only clusters of one set. A cluster that has left a set for good forgets "
                "it when its keys below /cells/ are deleted"
            )
    return ""


def _is_another_cluster(found: SurveyedCell, known: CellSet) -> bool:
    return not found.error and known.member(found.cell) is not None and not known.is_member(*_as_it_is(found))


def _is_confirmed(found: SurveyedCell, known: CellSet, readmit: Mapping[str, int]) -> bool:
    """Whether it is to be taken in again. It may have been removed for that already."""
    confirmed = not found.error and readmit.get(found.cell) == found.cluster_id
    return confirmed and not known.is_member(*_as_it_is(found))


def _does_not_know(found: SurveyedCell, known: CellSet) -> bool:
    """Whether it is the cluster of the set, and was not told of this version."""
    identity = found.identity
    behind = identity is None or identity.set.version < known.version
    return not found.error and known.is_member(*_as_it_is(found)) and behind


def _restored(cells: list[SurveyedCell], known: CellSet) -> Refuse | None:
    found = next((each for each in cells if _is_another_cluster(each, known)), None)
    if found is None:
        return None
    member = known.member(found.cell)
    was = f", and the set has {member.cluster_id:x}" if member is not None else ""
    return Refuse(
        "AnotherCluster",
        f"{found.cell} does not count: its cluster is {found.cluster_id:x}{was}. If it was restored from a snapshot or "
        f'replaced, set readmit: "{found.cluster_id:x}" of this cell to take it in again; what it had carried out '
        "after the snapshot is lost",
    )


def _as_it_is(found: SurveyedCell) -> tuple[str, int]:
    return found.cell, found.cluster_id


def _names(cells: Set[str]) -> str:
    return ", ".join(sorted(cells))
