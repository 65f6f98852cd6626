"""One process that begins a transaction and stops at a step: ENDPOINTS STEP KEY. It says so, and waits for its end.

It stops where it is between two requests, as seen from the cells: some of them are sent, and no more.
"""

from __future__ import annotations

import asyncio
import json
import sys

from holdfast import cells, client
from holdfast.client import Client
from holdfast.client.txn import Ops
from holdfast.proto import rpc_pb2

from holdfast_lab.cells.bank.steps import STEPS, Step, kind_of

TIMEOUT_SECONDS = 60.0  # longer than it lives
STOPPED = "stopped"


class Stopping:
    """The requests to all cells: what is not to be sent any more waits for ever. `cells`: all, home first."""

    def __init__(self, step: Step, cells: list[str]) -> None:
        self._step = step
        self._cells = cells
        self._left = len(step.reached(cells))  # of the last requests

    async def before(self, cell: str, request: rpc_pb2.TxnRequest) -> None:
        if not self._step.sends(kind_of(request), cell, self._cells):
            await asyncio.Event().wait()

    def after(self, request: rpc_pb2.TxnRequest) -> None:
        """It is answered, or its answer is not waited for any more."""
        self._left -= kind_of(request) is self._step.last
        if not self._left:
            print(STOPPED, flush=True)


class StoppingClient(Client):
    """Of one cell."""

    def __init__(self, cell: str, endpoints: list[str], stopping: Stopping) -> None:
        super().__init__(client.connect(endpoints, timeout=TIMEOUT_SECONDS).connection, session_ttl=60)
        self._cell = cell
        self._stopping = stopping

    async def commit(self, request: rpc_pb2.TxnRequest, *, barrier: bool = False) -> rpc_pb2.TxnResponse:
        await self._stopping.before(self._cell, request)
        try:
            return await super().commit(request, barrier=barrier)
        finally:
            self._stopping.after(request)


async def main(endpoints: dict[str, list[str]], step: Step, key: str) -> None:
    stopping = Stopping(step, list(endpoints))
    clients = {name: StoppingClient(name, where, stopping) for name, where in endpoints.items()}
    async with cells.connect(clients, timeout=TIMEOUT_SECONDS) as them:
        txn = them.txn()
        for cell in endpoints:
            txn.at(cell).then(Ops.put(key, "stopped"))
        await txn.commit()
        await asyncio.Event().wait()  # after the last step


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), STEPS[int(sys.argv[2])], sys.argv[3]))
