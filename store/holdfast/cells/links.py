"""The clients of the cells, and how they are asked all at once.

An answer counts only if it comes from the cluster that the identity names, in its header.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import NamedTuple

from holdfast.cells import part_wire, wire
from holdfast.cells.cell_set import CellSet
from holdfast.cells.errors import CellsUnavailable, NotSetUp
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
        self.set: CellSet | None = None  # the newest that any cell knows

    async def learn(self, timeout: float) -> CellSet:
        """Ask the cells which set they belong to. Raises NotSetUp or CellsUnavailable."""
        found = await asyncio.gather(*(self._identify(cell, timeout) for cell in self.clients))
        self._known = {identity.cell: identity for identity in found if isinstance(identity, Identity)}
        if not self._known:
            errors = dict(zip(self.clients, found, strict=True))
            said = "; ".join(f"{cell}: {why}" for cell, why in sorted(errors.items()))
            if all(isinstance(why, NotSetUp) for why in errors.values()):
                raise NotSetUp(f"the cells are not set up ({said})")
            raise CellsUnavailable(f"no cell can be asked ({said})")
        newest = max((identity.set for identity in self._known.values()), key=lambda cells: cells.version)
        strangers = newest.all - self.clients.keys()
        if strangers:
            raise NotSetUp(f"the cells {', '.join(sorted(strangers))} belong to the set, and no endpoints are given")
        self.set = newest
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
        if self.set is None:
            raise AssertionError("learn which set it is first")
        asked = [asyncio.ensure_future(self._ask(cell, request, timeout)) for cell in sorted(self.set.all)]
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
        read = rpc_pb2.TxnRequest(success=[Ops.get(part_wire.mark_key(txn))])
        _, answer = await self._ask(cell, lambda _: read, timeout)
        if isinstance(answer, ClientError):
            raise answer
        kvs = answer.responses[0].response_range.kvs
        return kvs[0].value if kvs else b""

    async def resolve(self, cell: str, txn: str, outcome: Outcome, timeout: float) -> Outcome | None:
        """Tell the cell the outcome. Returns what it says has become of the transaction; None if it knows nothing of
        it. Raises ClientError."""
        mark = await self.mark(cell, txn, timeout)
        known = part_wire.is_outcome(mark)
        if known is not None:
            return known
        request = part_wire.resolve(mark, txn, outcome)
        _, answer = await self._ask(cell, lambda _: request, timeout)
        if isinstance(answer, ClientError):
            raise answer
        if answer.succeeded and (mark or outcome is Outcome.ABORTED):
            return outcome
        # Somebody else told the cell meanwhile, or there was nothing.
        return part_wire.is_outcome(await self.mark(cell, txn, timeout))

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
            text = f"{cell} was restored: its cluster is {answer.header.cluster_id:x}, not {identity.cluster_id:x}"
            return Answered(cell, Restored(f"{text}; `holdfast cells readmit {cell}` tells it its registers again"))
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
