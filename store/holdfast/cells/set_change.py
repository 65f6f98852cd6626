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
from holdfast.cells.errors import CellsUnavailable, each
from holdfast.cells.identity import Identity
from holdfast.cells.links import Links
from holdfast.cells.register import Register
from holdfast.client.errors import ClientError

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
        does not: do it again then. Raises OutcomeUnknown as registers do. A cell that is added and then goes away
        before it is told does not count until it is taken in again."""
        if not wanted:
            raise ValueError("a set has at least one cell")
        strangers = wanted - self._links.clients.keys()
        if strangers:
            raise ValueError(f"no endpoints are given for {', '.join(sorted(strangers))}")
        while True:
            self._links.forget_set()
            now = await self._links.cells(self._timeout)
            if now.after:
                await self._finish(now)
            elif now.cells == wanted:
                await self._install(now, now.all)
                return now
            else:
                await self._answer(wanted - now.cells)
                await self._decide(CellSet(now.version + 1, now.cells, wanted), now.cells | wanted)

    async def _answer(self, added: frozenset[str]) -> None:
        """Raises CellsUnavailable unless all of these cells can be reached."""
        asked = sorted(added)
        found = await asyncio.gather(
            *(self._links.clients[cell].get(wire.SELF) for cell in asked), return_exceptions=True
        )
        errors = {cell: why for cell, why in zip(asked, found, strict=True) if isinstance(why, BaseException)}
        if errors:
            raise CellsUnavailable(f"{', '.join(errors)} cannot be added ({each(errors)})")

    async def _decide(self, next: CellSet, at: frozenset[str]) -> None:
        """Decide the next version, which is another one if somebody was faster, and tell these cells."""
        packed = Identity("", 0, next).packed()
        found = await self._register(f"{_REGISTER}{next.version}").change(lambda before: before or packed)
        decided = Identity.unpacked(found or packed).set
        await self._install(decided, (at | decided.all) & self._links.clients.keys())

    async def _install(self, cells: CellSet, at: Set[str]) -> frozenset[str]:
        """Let the version before decide nothing any more. Returns the cells that belong to it. Raises
        CellsUnavailable."""
        added = cells.after - cells.cells
        asked = sorted(at)
        found = await asyncio.gather(
            *(self._links.install(cell, cells, self._timeout, new=cell in added) for cell in asked)
        )
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
        await self._decide(CellSet(joint.version + 1, joint.after), joint.all)

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
