"""The counter of the bank: it watches all accounts and transactions, and settles what is open in pauses of the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from holdfast.cells import Cells, part_wire
from holdfast.cells.rows import rows
from holdfast.client import ClientError

from holdfast_lab.cells.bank.ledger import Ledger, packed, unpacked
from holdfast_lab.cells.bank.parts import Parts
from holdfast_lab.cells.bank.worker import PREFIX, account
from holdfast_lab.sim.violation import Violation, check

BALANCE = 100  # of each account at the beginning
FENCE = f"{PREFIX}~fence"  # written when nobody is at work: watches that have it have everything
CALM_SECONDS = 1.0  # without a new part: what the killed coordinators sent has arrived
PATIENCE_SECONDS = 60.0


class Counter:
    """`them`: its own clients of the cells."""

    def __init__(self, them: Cells, cells: list[str], accounts: int) -> None:
        self._them = them
        self._cells = cells
        self._places = [account(cells, number) for number in range(accounts)]
        self._fences = dict.fromkeys(cells, 0)
        self.ledger = Ledger(dict.fromkeys((key for _, key in self._places), BALANCE))
        self.parts = Parts()

    async def open(self) -> Mapping[str, int]:
        """Open all accounts. Returns the revision of each cell from which on it has to be watched."""
        revisions = {}
        for cell, key in self._places:
            revisions[cell] = (await self._them.client(cell).put(key, packed(BALANCE, "0.0.0"))).revision + 1
        return revisions

    async def watch_accounts(self, cell: str, revision: int) -> None:
        """Until it is cancelled. Raises Violation."""
        async for event in self._them.client(cell).watch(PREFIX, prefix=True, start_revision=revision):
            if event.kv.key == FENCE.encode():
                self._fences[cell] = int(event.kv.value)
            else:
                self.ledger.written(event.kv.key.decode(), event.kv.value)

    async def watch_parts(self, cell: str, revision: int) -> None:
        prefix = part_wire.TRANSACTIONS
        async for event in self._them.client(cell).watch(prefix, prefix=True, start_revision=revision):
            self.parts.seen(cell, event.kv.key.removeprefix(prefix).decode(), event.kv.value, time.monotonic())

    # ---- while nobody is at work ---------------------------------------------------------------------------

    async def settle(self, life: int) -> int:
        """All workers up to this life are gone, and all voters run: resolve what is open, and check everything. Returns
        how many marks of transactions are left. Raises Violation."""
        self.parts.settled()
        await self._until_calm()
        marks = 0
        for cell in self._cells:
            held = await self._them.client(cell).range(part_wire.INTENTS, prefix=True)
            check(not held.kvs, "B4", f"{cell} has intents after all was resolved: {[kv.key for kv in held.kvs]}")
            count, left = await self._marks(cell)
            check(not left, "B4", f"{cell} has parts after all was resolved: {left}")
            marks += count
        await self._until_told()
        found = {key: await self._balance(cell, key) for cell, key in self._places}
        self.ledger.settle(found, life)
        return marks

    async def _until_calm(self) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        calm_since = time.monotonic()
        while time.monotonic() < calm_since + CALM_SECONDS:
            check(time.monotonic() < end, "B4", f"there are intents after {PATIENCE_SECONDS:g} s of resolving them")
            for cell in self._cells:
                held = await self._them.client(cell).range(part_wire.INTENTS, prefix=True)
                for txn in {kv.value.decode() for kv in held.kvs}:
                    calm_since = time.monotonic()
                    await self._resolve(cell, txn)
            await asyncio.sleep(0.1)

    async def _resolve(self, cell: str, txn: str) -> None:
        try:
            await self._them.resolve(cell, txn)
        except ClientError as error:
            print(f"{txn} at {cell} is not resolved: {error}", flush=True)  # it is tried again

    async def _marks(self, cell: str) -> tuple[int, list[str]]:
        """Of how many transactions the cell knows, and those of which it has a part that is prepared."""
        client, count, prepared = self._them.client(cell), 0, []
        read = rows(lambda start, end, limit: client.range(start, end=end, limit=limit), part_wire.TRANSACTIONS)
        async for key, mark in read:
            count += 1
            if part_wire.is_outcome(mark) is None:
                prepared.append(key.decode())
        return count, prepared

    async def _until_told(self) -> None:
        """Wait until the watches of accounts have everything."""
        number = 1 + max(self._fences.values())
        for cell in self._cells:
            await self._them.client(cell).put(FENCE, str(number))
        end = time.monotonic() + PATIENCE_SECONDS
        while min(self._fences.values()) < number:
            if time.monotonic() > end:
                raise Violation("L1", f"watches hear nothing: {self._fences}, wanted {number}")
            await asyncio.sleep(0.02)

    async def _balance(self, cell: str, key: str) -> int:
        found = await self._them.client(cell).get(key)
        assert found is not None
        return unpacked(found.value)[0]
