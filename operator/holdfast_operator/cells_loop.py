"""One loop per HoldfastCells. It makes a pass every few seconds, because no event tells what goes on in the cells."""

from __future__ import annotations

from holdfast_operator.kube import Kube
from holdfast_operator.loop import Key, Loop, Loops
from holdfast_operator.reconcile_cells import CellsReconciler


def cells_loops(kube: Kube, image: str) -> Loops:
    """The loops of all HoldfastCells. `image`: of their pods, unless the spec names one."""
    return Loops(lambda key: CellsLoop(kube, key, image))


class CellsLoop(Loop):
    def __init__(self, kube: Kube, key: Key, image: str) -> None:
        super().__init__(key)
        self._cells = CellsReconciler(kube, *key, image, self.woken.set)

    async def close(self) -> None:
        await self._cells.close()

    async def _pass(self) -> float | None:
        return await self._alone("cells", self._cells.run())
