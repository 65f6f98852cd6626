"""Changes the set of cells: cells are added, removed, or taken in again after a restore.

As in Raft's joint consensus (Ongaro's thesis, section 4.3) there is a version of the set in between, for which a
majority of the cells before *and* one of the cells after are needed. A version is decided by a register of the version
before it, so two programs that change the set at a time agree on one change after the other.

| Version | Is complete when | Because |
|---|---|---|
| joint | a majority of the cells before, and of those after, has it | the version before decides nothing then |
| | each register was decided again | a majority of the cells after has its value then |
| next | a majority of the cells after has it | the joint version decides nothing then |

Each step can be repeated, and whoever finds a joint version may finish it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set

from holdfast.cells import wire
from holdfast.cells.cell_set import CellSet
from holdfast.cells.errors import CellsUnavailable, NotSetUp, each
from holdfast.cells.identity import Identity
from holdfast.cells.links import Itself, Links
from holdfast.cells.register import Register
from holdfast.client.errors import ClientError, OutcomeUnknown

AT_ONCE = 32  # registers that are decided again at a time
_REGISTER = "set."  # and the version: decides that version


class SetChange:
    """`register` gives the register of a name."""

    def __init__(self, links: Links, register: Callable[[str], Register], timeout: float) -> None:
        self._links = links
        self._register = register
        self._timeout = timeout

    async def to(self, wanted: frozenset[str]) -> CellSet:
        """Make `wanted` the set of cells. Raises CellsUnavailable if too few cells answer, or one that is to be added
        does not: do it again then. Raises NotSetUp if that one belongs to another set, and OutcomeUnknown as registers
        do. A cell that is added and then goes away before it is told is told later, by whoever finds it."""
        while (now := await self._complete()).cells != wanted:
            await self._begin(now, wanted)
        await self._install(now, now.all)
        return now

    async def add(self, cell: str) -> CellSet:
        """Add the cell, whatever the others are meanwhile. Raises as `to` does."""
        while cell not in (now := await self._complete()).cells:
            await self._begin(now, now.cells | {cell})
        await self._install(now, now.all)
        return now

    async def remove_restored(self, cell: str) -> CellSet:
        """Remove the cell from the set if its cluster is another one than that which was added. Whoever calls this
        while somebody else takes the cell in again does not remove it once more. Raises as `to` does."""
        while cell in (now := await self._complete()).cells:
            if now.is_member(cell, (await self._ask({cell}))[cell].cluster_id):
                break
            await self._begin(now, now.cells - {cell})
        return now

    async def _complete(self) -> CellSet:
        """The set, when no change of it is left."""
        while True:
            self._links.forget_set()
            now = await self._links.cells(self._timeout)
            if not now.after:
                return now
            await self._finish(now)

    async def _begin(self, now: CellSet, wanted: frozenset[str]) -> None:
        if not wanted:
            raise ValueError("a set has at least one cell")
        strangers = wanted - self._links.clients.keys()
        if strangers:
            raise ValueError(f"no endpoints are given for {', '.join(sorted(strangers))}")
        added = await self._ask(wanted - now.cells)
        for cell, answer in added.items():
            if answer.identity is not None and not answer.restored and not answer.identity.set.same_as(now):
                raise NotSetUp(
                    f"{cell} belongs to another set of cells, that of {', '.join(sorted(answer.identity.set.all))}; a "
                    "cluster that has left a set for good forgets it when its keys below /cells/ are deleted"
                )
        clusters = {cell: answer.cluster_id for cell, answer in added.items()}
        await self._decide(now.joint(wanted, clusters), now.cells | wanted)

    async def _ask(self, cells: Set[str]) -> dict[str, Itself]:
        """Which clusters they are. Raises CellsUnavailable unless all of them can be reached."""
        asked = sorted(cells)
        found = await asyncio.gather(*(self._links.itself(cell, self._timeout) for cell in asked))
        errors = {cell: why for cell, why in zip(asked, found, strict=True) if isinstance(why, ClientError)}
        if errors:
            raise CellsUnavailable(f"{', '.join(errors)} cannot be asked which cluster it is ({each(errors)})")
        return {cell: it for cell, it in zip(asked, found, strict=True) if isinstance(it, Itself)}

    async def _decide(self, next: CellSet, at: frozenset[str]) -> None:
        """Decide the next version, which is another one if somebody was faster, and tell these cells."""
        packed = Identity("", 0, next).packed()
        try:
            found = await self._register(f"{_REGISTER}{next.version}").change(lambda before: before or packed)
        except (CellsUnavailable, OutcomeUnknown):
            if self._links.knows(next.version):
                return  # a cell has it: it was decided before
            raise
        decided = Identity.unpacked(found or packed).set
        await self._install(decided, (at | decided.all) & self._links.clients.keys())

    async def _install(self, cells: CellSet, at: Set[str]) -> frozenset[str]:
        """Let the version before decide nothing any more. Returns the cells that belong to it. Raises
        CellsUnavailable."""
        asked = sorted(at)
        found = await asyncio.gather(*(self._links.install(cell, cells, self._timeout) for cell in asked))
        errors = {cell: why for cell, why in zip(asked, found, strict=True) if why is not None}
        if not cells.is_quorum(at - errors.keys()):
            raise CellsUnavailable(f"too few cells have version {cells.version} of the set of cells ({each(errors)})")
        return frozenset(cells.all - errors.keys())

    async def _finish(self, joint: CellSet) -> None:
        # Only a cell that belongs to the joint version says which registers there are: what the version before has
        # decided was accepted by one of them before it did.
        installed = await self._install(joint, joint.all)
        names = sorted(await self._registers(joint, installed & joint.cells))
        for first in range(0, len(names), AT_ONCE):
            await asyncio.gather(*(self._register(name).change(_as_it_is) for name in names[first : first + AT_ONCE]))
        await self._decide(joint.completed(), joint.all)

    async def _registers(self, joint: CellSet, cells: frozenset[str]) -> set[str]:
        """The names of all that a majority of the cells before can have decided. Raises CellsUnavailable."""
        found = await asyncio.gather(*(self._registers_of(cell) for cell in sorted(cells)), return_exceptions=True)
        errors: dict[str, ClientError] = {}
        names: set[str] = set()
        for cell, of in zip(sorted(cells), found, strict=True):
            if isinstance(of, ClientError):
                errors[cell] = of
            elif isinstance(of, BaseException):
                raise of
            else:
                names |= of
        if not CellSet(joint.version, joint.cells).is_quorum(cells - errors.keys()):
            raise CellsUnavailable(f"too few cells say which registers there are ({each(errors)})")
        return names

    async def _registers_of(self, cell: str) -> set[str]:
        return {wire.register_of(key) async for key, _ in self._links.rows(cell, wire.REGISTERS)}


def _as_it_is(value: bytes | None) -> None:
    """A change of a register that leaves it as it is."""
