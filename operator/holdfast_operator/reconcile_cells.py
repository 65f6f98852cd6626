"""One pass over one HoldfastCells: ask all cells, begin the next step, keep the Deployment, write the status.

A cell that has left the spec stays in the status, with its place, until it has left the set; so it can be reached until
then, also by an operator that has just started. Invariant: no step begins before the status has the place of each cell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from holdfast.cells import Cells, Survey

from holdfast_operator import status
from holdfast_operator.cells_connection import CellsConnection
from holdfast_operator.cells_status import Seen, cells_status
from holdfast_operator.cells_work import CellsWork
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.members import from_hex
from holdfast_operator.model.cells import CellsSpec, CellsStatus, Where
from holdfast_operator.model.parse import InvalidSpec, parse, parse_status
from holdfast_operator.objects import Leaving, NotOurs, ensure
from holdfast_operator.places import places_of
from holdfast_operator.plan.cells import Change, Forget, Readmit, Refuse, Settled, SetUp, Step, counting, plan, stale
from holdfast_operator.pods import troubles_of
from holdfast_operator.resources.cells import Place, workers, workers_name
from holdfast_operator.resources.common import CELLS_LABEL

log = logging.getLogger("holdfast.operator")

PASS_SECONDS = 10.0
CALL_SECONDS = 5.0


class CellsReconciler:
    """What outlives a pass: the connections, and the step that is under way."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        image: str,
        wake: Callable[[], None],
        timeout: float = CALL_SECONDS,
    ) -> None:
        """`image`: of the pods, unless the spec names one. `wake`: called when a step is done. `timeout`: seconds for
        each call to a cell."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._image = image
        self._connection = CellsConnection(timeout)
        self._work = CellsWork(wake)

    async def close(self) -> None:
        await self._work.cancel()
        await self._connection.close()

    async def run(self) -> float | None:
        """One pass. Returns the seconds until the next one is due; None if the object is gone."""
        obj = await self._kube.get("HoldfastCells", self._namespace, self._name)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            await self.close()
            return None
        try:
            await self._pass(obj)
        except InvalidSpec as error:
            await self._work.cancel()
            await self._stalled(obj, "InvalidSpec", f"this operator cannot use the object: {error}")
        except NotOurs as error:
            await self._stalled(obj, "NotOurs", str(error))
        except ApiError as error:
            if error.passes:
                raise  # the loop tries again
            await self._stalled(obj, "Refused", str(error))
        return PASS_SECONDS

    async def _pass(self, obj: Object) -> None:
        spec = parse(CellsSpec, obj).spec
        before = parse_status(CellsStatus, obj)
        wanted = frozenset(cell.name for cell in spec.cells)
        where: dict[str, Where] = {cell.name: cell for cell in spec.cells}
        where |= {cell.name: cell for cell in before.cells or () if cell.name not in where}
        places = await places_of(self._kube, self._namespace, where)
        if not self._connection.is_to(places):
            await self._work.cancel()
        them = await self._connection.to(places)
        survey = await them.survey()
        readmit = {cell.name: from_hex(cell.readmit) for cell in spec.cells if cell.readmit}
        step = plan(wanted, places.keys(), survey, managed=before.version is not None, readmit=readmit)
        if step == Settled():
            step = stale(_copies(spec), survey) or step
        staying = {cell: place for cell, place in places.items() if cell in wanted or not _has_left(cell, survey)}
        not_working = await self._keep_workers(obj, spec, staying, survey, step)
        seen = Seen(
            wanted=wanted,
            where=where,
            places=staying,
            survey=survey,
            version=_version(before, survey, step),
            step=step,
            failed=self._work.failed if self._work.step == step else "",
            workers=not_working,
            now=time.time_ns() // 1_000_000,
        )
        if await status.tell(self._kube, obj, cells_status(obj, seen)):
            self._begin(obj, step, them)

    # ---- the set -------------------------------------------------------------------------------------------

    def _begin(self, obj: Object, step: Step, them: Cells) -> None:
        if self._work.busy:
            return
        match step:
            case SetUp():
                self._work.begin(step, _whole(them.set_up()))
            case Change(cells):
                self._work.begin(step, _whole(them.change_set(cells)))
            case Readmit(cell):
                self._work.begin(step, self._readmit(obj, them, cell))
            case Forget(source, destination, prefix):
                self._work.begin(step, _whole(them.replication(source, destination, prefix).forget()))
            case _:
                self._work.forget()

    async def _readmit(self, obj: Object, them: Cells, cell: str) -> None:
        lost = await them.readmit(cell)
        what = "; ".join(f"{count} messages from {source} were lost with it" for source, count in sorted(lost.items()))
        message = f"{cell} counts again{': ' if what else ''}{what}"
        try:
            await self._kube.event(obj, "Normal", "Readmitted", message)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.warning("no event could be written: %s (%r)", message, error)

    # ---- the pods ------------------------------------------------------------------------------------------

    async def _keep_workers(
        self, obj: Object, spec: CellsSpec, places: Mapping[str, Place], survey: Survey, step: Step
    ) -> str:
        """Keep the Deployment as it is wanted, once there is a set. Its pods know a cell before it is added, and until
        it has left. Returns why they do not work; empty if they do."""
        if survey.set is None or (isinstance(step, Refuse) and step.reason == "OtherSet"):
            return "the cells are no set yet, so nothing runs"
        unknown = "; ".join(f"{cell}: {place.trouble}" for cell, place in places.items() if place.trouble)
        if unknown:
            return f"the pods stay as they are until all cells can be reached by them ({unknown})"
        wanted = workers(obj, spec, places, spec.image or self._image)
        try:
            live = await ensure(self._kube, obj, wanted)
        except Leaving as leaving:
            return str(leaving)
        except ApiError as error:
            if error.passes:
                raise  # the loop tries again
            return f"the Deployment {workers_name(self._name)} is refused: {error}"
        return await self._not_ready(spec, live)

    async def _not_ready(self, spec: CellsSpec, live: Object) -> str:
        told = live.get("status") or {}
        current = told.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
        ready = min(told.get("readyReplicas", 0), told.get("updatedReplicas", 0)) if current else 0
        if current and ready >= spec.replicas:
            return ""
        pods = await self._kube.list("Pod", self._namespace, labels=f"{CELLS_LABEL}={self._name}")
        troubles = [f"{pod['metadata']['name']}: {trouble}" for pod in pods for trouble in troubles_of(pod)]
        return "; ".join([f"{ready} of {spec.replicas} pods are up to date and ready", *troubles])

    async def _stalled(self, obj: Object, reason: str, message: str) -> None:
        conditions = [
            *status.ready(obj, False, reason, message, progressing=False, stalled=True),
            status.condition(obj, "Available", None, reason, "the cells were not asked"),
        ]
        # The places and the version are needed later; nothing else is told as if it were so now.
        kept = {key: value for key, value in obj.get("status", {}).items() if key in ("cells", "version")}
        await status.tell(self._kube, obj, {**kept, "conditions": conditions})


def _copies(spec: CellsSpec) -> set[Forget]:
    return {Forget(each.from_, to, each.prefix) for each in spec.replicate or () for to in spec.destinations(each)}


async def _whole(work: Awaitable[object]) -> None:
    await work


def _has_left(cell: str, survey: Survey) -> bool:
    """Whether a majority says so: a cell that is told late knows an older set."""
    return survey.set is not None and cell not in survey.set.all and survey.set.is_quorum(counting(survey))


def _version(before: CellsStatus, survey: Survey, step: Step) -> int | None:
    """The version of the set that this object has: not that of a set that it may not change."""
    if survey.set is None or (isinstance(step, Refuse) and step.reason == "OtherSet"):
        return before.version
    return survey.set.version
