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
from holdfast.cells.rows import rows
from holdfast.client.client import Client
from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.client.txn import Key, Ops
from holdfast.proto import cells_pb2, rpc_pb2

Ask = Callable[[bytes], rpc_pb2.TxnRequest]  # the request, from the packed identity of the cell that is asked


class Restored(ClientError):
    """The cluster behind a cell is another one than that which was set up."""


class OtherSet(CellsUnavailable):
    """The cell belongs to another version of the set than it was asked for. `newer`: to a later one."""

    def __init__(self, there: CellSet | None, asked: CellSet) -> None:
        super().__init__("it belongs to another version of the set of cells")
        self.newer = there is not None and there.version > asked.version


class Answered(NamedTuple):
    cell: str
    answer: rpc_pb2.TxnResponse | ClientError


class Itself(NamedTuple):
    """What a cell says of itself. `identity`: as it was set up; None: it was not."""

    cluster_id: int
    identity: Identity | None

    @property
    def restored(self) -> bool:
        return self.identity is not None and self.identity.cluster_id != self.cluster_id


class Links:
    """`clients`: of all cells, by name."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self.clients = dict(clients)
        self._known: dict[str, Identity] = {}
        self._set: CellSet | None = None  # the newest that any cell knows

    def forget_set(self) -> None:
        """Ask again which set it is, before the next request."""
        self._set = None

    def moved(self, cell: str, there: CellSet | None, asked: CellSet) -> OtherSet:
        """The cell belongs to this version (None: to none) and was asked for another one: learn anew which it is."""
        self._known.pop(cell, None)
        self._set = None
        return OtherSet(there, asked)

    def is_newest(self, cells: CellSet) -> bool:
        """Whether no cell has said yet that this is not the set any more."""
        return self._set == cells

    def knows(self, version: int) -> bool:
        """Whether the newest set that any cell knows has this version, or is a later one."""
        return self._set is not None and self._set.version >= version

    async def cells(self, timeout: float) -> CellSet:
        """The set of cells, which is asked for if it is not known. Raises NotSetUp or CellsUnavailable."""
        return self._set if self._set is not None else await self._learn(timeout)

    async def _learn(self, timeout: float) -> CellSet:
        """The newest set that is known to those who answer first; they are a quorum of it. Later versions are known to
        others then, who say so when they are asked."""
        asked = {cell: asyncio.ensure_future(self._identify(cell, timeout)) for cell in self.clients}
        newest: CellSet | None = None
        versions: dict[str, int] = {}  # 0: a cell was not told of any set
        try:
            for answered in asyncio.as_completed([_named(cell, task) for cell, task in asked.items()]):
                cell, identity = await answered
                if isinstance(identity, ClientError):
                    if isinstance(identity, NotSetUp):
                        versions[cell] = 0
                    continue
                self._known[identity.cell] = identity
                newest = identity.set if newest is None or identity.set.version > newest.version else newest
                versions[identity.cell] = identity.set.version
                if newest.is_quorum({cell for cell, version in versions.items() if version == newest.version}):
                    break
        finally:
            for task in asked.values():
                task.cancel()
        if newest is None:
            found = {cell: task.result() for cell, task in asked.items()}
            if all(isinstance(why, NotSetUp) for why in found.values()):
                raise NotSetUp(f"the cells are not set up ({each(found)})")
            raise CellsUnavailable(f"no cell can be asked ({each(found)})")
        strangers = newest.all - self.clients.keys()
        if strangers:
            raise NotSetUp(f"the cells {', '.join(sorted(strangers))} belong to the set, and no endpoints are given")
        late = [cell for cell in sorted(newest.all & versions.keys()) if versions[cell] < newest.version]
        await asyncio.gather(*(self.install(cell, newest, timeout) for cell in late))
        self._set = newest
        return newest

    async def install(self, cell: str, cells: CellSet, timeout: float) -> ClientError | None:
        """Tell the cell that this set was decided, unless it knows a later one. What it has of registers from before it
        was added is removed. Returns why it does not count."""
        member = cells.member(cell)
        request = rpc_pb2.TxnRequest(success=[Ops.get(wire.SELF)])
        while True:
            answer = await self._commit(cell, request, timeout)
            if isinstance(answer, ClientError):
                return answer
            kvs = answer.responses[-1].response_range.kvs
            before = Identity.unpacked(kvs[0].value) if kvs else None
            cluster = answer.header.cluster_id
            same = before is not None and before.cluster_id == cluster
            if not (same if member is None else member.cluster_id == cluster):
                return Restored(f"{cell} does not count: its cluster is {cluster:x}, which is not the one of the set")
            stays = same and before is not None and (member is None or before.set.version >= member.since)
            if before is not None and stays and before.set.version >= cells.version:
                self._known[cell] = before
                return None
            wanted = Identity(cell, cluster, cells).packed()
            as_known = Key(wire.SELF).value == kvs[0].value if kvs else Key(wire.SELF).version == 0
            gone = [] if stays else [Ops.delete(wire.REGISTERS, prefix=True)]
            put = [*gone, Ops.put(wire.SELF, wanted), Ops.get(wire.SELF)]
            request = rpc_pb2.TxnRequest(compare=[as_known], success=put, failure=[Ops.get(wire.SELF)])

    async def itself(self, cell: str, timeout: float) -> Itself | ClientError:
        answer = await self._commit(cell, rpc_pb2.TxnRequest(success=[Ops.get(wire.SELF)]), timeout)
        if isinstance(answer, ClientError):
            return answer
        kvs = answer.responses[-1].response_range.kvs
        try:
            return Itself(answer.header.cluster_id, Identity.unpacked(kvs[0].value) if kvs else None)
        except ValueError as error:
            return NotSetUp(f"{cell}: {error}")

    async def _identify(self, cell: str, timeout: float) -> Identity | ClientError:
        found = await self.itself(cell, timeout)
        if isinstance(found, ClientError):
            return found
        identity = found.identity
        if identity is None:
            return NotSetUp(f"{cell} is not set up as a cell: `holdfast cells init` does that")
        if identity.cell != cell:
            return NotSetUp(f"{cell} is set up as the cell {identity.cell}")
        return _restored(cell, found.cluster_id, identity) or identity

    async def ask(self, cells: CellSet, request: Ask, timeout: float) -> AsyncIterator[Answered]:
        """Ask all cells of the set at once; the answers come as they arrive. Who stops listening cancels the rest. Only
        cells that belong to this very version of the set answer: two versions that follow each other may decide without
        each other."""
        asked = [asyncio.ensure_future(self._ask(cell, request, timeout, cells)) for cell in sorted(cells.all)]
        try:
            for answered in asyncio.as_completed(asked):
                yield await answered
        finally:
            for task in asked:
                task.cancel()

    async def prepare(
        self, cell: str, part: cells_pb2.TransactionPart, timeout: float
    ) -> part_wire.Prepared | ClientError:
        asked_as = b""

        def request(identity: bytes) -> rpc_pb2.TxnRequest:
            nonlocal asked_as
            asked_as = identity
            return part_wire.prepare(identity, part)

        cell, answer = await self._ask(cell, request, timeout)
        if isinstance(answer, ClientError):
            return answer
        prepared = part_wire.prepared(asked_as, part, answer)
        return self._of_another_set(cell) if isinstance(prepared, wire.AnotherIdentity) else prepared

    def _of_another_set(self, cell: str) -> CellsUnavailable:
        self._known.pop(cell, None)  # learn it anew
        return CellsUnavailable(f"{cell} belongs to another set of cells than when it was last asked; try again")

    async def mark(self, cell: str, txn: str, timeout: float) -> bytes:
        """What the cell has of the transaction: its part, or the outcome; empty if nothing. Raises ClientError."""
        return part_wire.mark_in(await self.request(cell, part_wire.look(txn), timeout))

    async def resolve(
        self,
        cell: str,
        txn: str,
        outcome: Outcome,
        sessions: Mapping[str, str],
        timeout: float,
        part: bytes | None = None,
    ) -> Outcome | None:
        """Tell the cell the outcome. `sessions`: of the coordinator. `part`: what the cell has if it is prepared there,
        as far as the caller knows. Returns what the cell says has become of the transaction; None if it knows nothing
        of it. Raises ClientError."""
        mark = await self.mark(cell, txn, timeout) if part is None else part
        while (known := part_wire.is_outcome(mark)) is None:
            answer = await self.request(cell, part_wire.resolve(mark, txn, outcome, sessions), timeout)
            if answer.succeeded:
                return outcome if mark or outcome is Outcome.ABORTED else None
            mark = part_wire.mark_in(answer)  # somebody else told the cell, or it is not prepared
        return known

    async def rows(self, cell: str, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        """All keys with this prefix, and their values. Raises ClientError."""
        client = self.clients[cell]
        async for row in rows(lambda start, end, limit: client.range(start, end=end, limit=limit), prefix):
            yield row

    async def tell(self, cell: str, request: Ask, timeout: float) -> rpc_pb2.TxnResponse:
        """Make a request of one cell. Raises ClientError, also if the cell belongs to another set than it did."""
        answer = await self._answer(cell, request, timeout)
        if not answer.succeeded:
            raise self._of_another_set(cell)
        return answer

    async def request(self, cell: str, request: rpc_pb2.TxnRequest, timeout: float) -> rpc_pb2.TxnResponse:
        """Make a request of one cell, whichever set it belongs to. Raises ClientError, also if it was restored."""
        return await self._answer(cell, lambda _: request, timeout)

    async def _answer(self, cell: str, request: Ask, timeout: float) -> rpc_pb2.TxnResponse:
        _, answer = await self._ask(cell, request, timeout)
        if isinstance(answer, ClientError):
            raise answer
        return answer

    async def _ask(self, cell: str, request: Ask, timeout: float, cells: CellSet | None = None) -> Answered:
        identity = self._known.get(cell) or await self._identify(cell, timeout)
        if isinstance(identity, ClientError):
            return Answered(cell, identity)
        self._known[cell] = identity
        if cells is not None and identity.set.version != cells.version:
            return Answered(cell, self.moved(cell, identity.set, cells))
        answer = await self._commit(cell, request(identity.packed()), timeout)
        if isinstance(answer, ClientError):
            return Answered(cell, answer)
        restored = _restored(cell, answer.header.cluster_id, identity)
        if restored is not None:
            self._known.pop(cell, None)  # it may be taken in again
        return Answered(cell, restored or answer)

    async def _commit(
        self, cell: str, request: rpc_pb2.TxnRequest, timeout: float
    ) -> rpc_pb2.TxnResponse | ClientError:
        try:
            async with asyncio.timeout(timeout):
                return await self.clients[cell].commit(request)
        except ClientError as error:
            return error
        except TimeoutError:
            what = f"{cell}: no answer within {timeout:.1f} s"
            return OutcomeUnknown(what) if _writes(request) else CellsUnavailable(what)


async def _named(cell: str, task: asyncio.Future[Identity | ClientError]) -> tuple[str, Identity | ClientError]:
    return cell, await task


def _restored(cell: str, there: int, identity: Identity) -> Restored | None:
    """Why what this cluster says does not count, if it is not the one that the identity names."""
    if there == identity.cluster_id:
        return None
    return Restored(f"{cell} does not count: its cluster is {there:x}, it was set up as {identity.cluster_id:x}")


def _writes(request: rpc_pb2.TxnRequest) -> bool:
    return any(op.WhichOneof("request") != "request_range" for op in (*request.success, *request.failure))


async def set_up(clients: Mapping[str, Client]) -> CellSet:
    """Make these clusters a set of cells. It may be repeated after a failure. Raises NotSetUp if one belongs to another
    set, and ClientError if one does not answer."""
    clusters = {cell: (await client.status()).header.cluster_id for cell, client in clients.items()}
    wanted = CellSet.first(clusters)
    for cell, client in clients.items():
        identity = Identity(cell, clusters[cell], wanted)
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
