"""The clients of the cells, and how they are asked all at once.

An answer counts only if it comes from the cluster that the identity names, in its header.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from holdfast.cells import part_wire, wire
from holdfast.cells.cell_set import CellSet
from holdfast.cells.errors import CellsUnavailable, NotSetUp, each
from holdfast.cells.identity import Identity
from holdfast.cells.participant import Outcome
from holdfast.client.client import Client
from holdfast.client.errors import ClientError
from holdfast.client.txn import Key, Ops
from holdfast.proto import cells_pb2, rpc_pb2

Ask = Callable[[bytes], rpc_pb2.TxnRequest]  # the request, from the packed identity of the cell that is asked


class Restored(ClientError):
    """The cluster behind a cell is another one than that which was set up."""


class Answered(NamedTuple):
    cell: str
    answer: rpc_pb2.TxnResponse | ClientError


class Links:
    """`clients`: of all cells, by name."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self.clients = dict(clients)
        self._known: dict[str, Identity] = {}
        self._set: CellSet | None = None  # the newest that any cell knows

    def forget_set(self) -> None:
        """Ask again which set it is, before the next request."""
        self._set = None

    async def cells(self, timeout: float) -> CellSet:
        """The set of cells, which is asked for if it is not known. Raises NotSetUp or CellsUnavailable."""
        return self._set if self._set is not None else await self._learn(timeout)

    async def _learn(self, timeout: float) -> CellSet:
        found = await asyncio.gather(*(self._identify(cell, timeout) for cell in self.clients))
        self._known = {identity.cell: identity for identity in found if isinstance(identity, Identity)}
        if not self._known:
            said = each(dict(zip(self.clients, found, strict=True)))
            if all(isinstance(why, NotSetUp) for why in found):
                raise NotSetUp(f"the cells are not set up ({said})")
            raise CellsUnavailable(f"no cell can be asked ({said})")
        newest = max((identity.set for identity in self._known.values()), key=lambda cells: cells.version)
        strangers = newest.all - self.clients.keys()
        if strangers:
            raise NotSetUp(f"the cells {', '.join(sorted(strangers))} belong to the set, and no endpoints are given")
        self._set = newest
        return newest

    async def _identify(self, cell: str, timeout: float) -> Identity | ClientError:
        try:
            async with asyncio.timeout(timeout):
                found = await self.clients[cell].get(wire.SELF)
            if found is None:
                return NotSetUp("it does not know that it is a cell")
            identity = Identity.unpacked(found.value)
        except (ClientError, ValueError) as error:
            return error if isinstance(error, ClientError) else NotSetUp(str(error))
        except TimeoutError:
            return CellsUnavailable(f"no answer within {timeout:.1f} s")
        return identity if identity.cell == cell else NotSetUp(f"it is the cell {identity.cell}")

    async def ask(self, request: Ask, timeout: float) -> AsyncIterator[Answered]:
        """Ask all cells of the set at once; the answers come as they arrive. Who stops listening cancels the rest."""
        cells = await self.cells(timeout)
        asked = [asyncio.ensure_future(self._ask(cell, request, timeout)) for cell in sorted(cells.all)]
        try:
            for answered in asyncio.as_completed(asked):
                yield await answered
        finally:
            for task in asked:
                task.cancel()

    async def prepare(
        self, cell: str, part: cells_pb2.TransactionPart, timeout: float
    ) -> part_wire.Prepared | ClientError:
        cell, answer = await self._ask(cell, lambda identity: part_wire.prepare(identity, part), timeout)
        if isinstance(answer, ClientError):
            return answer
        prepared = part_wire.prepared(self._known[cell].packed(), part, answer)
        if isinstance(prepared, wire.AnotherIdentity):
            del self._known[cell]  # learn it anew
            return CellsUnavailable(f"{cell} belongs to another set of cells than when it was last asked; try again")
        return prepared

    async def mark(self, cell: str, txn: str, timeout: float) -> bytes:
        """What the cell has of the transaction: its part, or the outcome; empty if nothing. Raises ClientError."""
        return part_wire.mark_in(await self._told(cell, part_wire.look(txn), timeout))

    async def resolve(
        self, cell: str, txn: str, outcome: Outcome, timeout: float, part: bytes | None = None
    ) -> Outcome | None:
        """Tell the cell the outcome. `part`: what it has if it is prepared there, as far as the caller knows. Returns
        what it says has become of the transaction; None if it knows nothing of it. Raises ClientError."""
        mark = await self.mark(cell, txn, timeout) if part is None else part
        while (known := part_wire.is_outcome(mark)) is None:
            answer = await self._told(cell, part_wire.resolve(mark, txn, outcome), timeout)
            if answer.succeeded:
                return outcome if mark or outcome is Outcome.ABORTED else None
            mark = part_wire.mark_in(answer)  # somebody else told the cell, or it is not prepared
        return known

    async def _told(self, cell: str, request: rpc_pb2.TxnRequest, timeout: float) -> rpc_pb2.TxnResponse:
        """Raises ClientError."""
        _, answer = await self._ask(cell, lambda _: request, timeout)
        if isinstance(answer, ClientError):
            raise answer
        return answer

    async def _ask(self, cell: str, request: Ask, timeout: float) -> Answered:
        identity = self._known.get(cell) or await self._identify(cell, timeout)
        if isinstance(identity, ClientError):
            return Answered(cell, identity)
        self._known[cell] = identity
        try:
            async with asyncio.timeout(timeout):
                answer = await self.clients[cell].commit(request(identity.packed()))
        except ClientError as error:
            return Answered(cell, error)
        except TimeoutError:
            return Answered(cell, CellsUnavailable(f"no answer within {timeout:.1f} s"))
        if answer.header.cluster_id != identity.cluster_id:
            there, known = answer.header.cluster_id, identity.cluster_id
            return Answered(
                cell, Restored(f"{cell} does not count: its cluster is {there:x}, it was set up as {known:x}")
            )
        return Answered(cell, answer)


async def set_up(clients: Mapping[str, Client]) -> CellSet:
    """Make these clusters a set of cells. It may be repeated after a failure. Raises NotSetUp if one belongs to another
    set, and ClientError if one does not answer."""
    wanted = CellSet(1, frozenset(clients))
    for cell, client in clients.items():
        identity = Identity(cell, (await client.status()).header.cluster_id, wanted)
        answer = await (
            client.txn()
            .if_(Key(wire.SELF).version == 0)
            .then(Ops.put(wire.SELF, identity.packed()))
            .else_(Ops.get(wire.SELF))
            .commit()
        )
        (kvs,) = answer.responses
        if isinstance(kvs, list) and Identity.unpacked(kvs[0].value) != identity:
            there = Identity.unpacked(kvs[0].value)
            raise NotSetUp(f"{cell} is set up already, as the cell {there.cell} of {', '.join(sorted(there.set.all))}")
    return wanted
