"""One process that moves money between accounts of different cells: ENDPOINTS ACCOUNTS LIFE SEED.

For each transfer it prints its memo, and what became of it. It is killed at any moment.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from random import Random

from holdfast.cells import Cells, CellsUnavailable, TransactionAborted
from holdfast.client import Client, ClientError
from holdfast.client.txn import Ops

from holdfast_lab.cells.bank.ledger import DONE, NOT_KNOWN, packed, unpacked
from holdfast_lab.cells.clusters import reach

TASKS = 2
TIMEOUT_SECONDS = 5.0
MOST = 10  # of a transfer
PREFIX = "/accounts/"


def account(cells: list[str], number: int) -> tuple[str, str]:
    """The cell of an account, and its key."""
    return cells[number % len(cells)], f"{PREFIX}{number:04d}"


async def transfer(them: Cells, source: tuple[str, str], target: tuple[str, str], amount: int, memo: str) -> str:
    """Move money. Returns what became of it."""
    try:
        before, after = await asyncio.gather(*(them.client(cell).get(key) for cell, key in (source, target)))
    except ClientError:
        return "not begun"
    assert before is not None, "accounts are never closed"
    assert after is not None
    amount = min(amount, unpacked(before.value)[0])
    if amount == 0:
        return "not begun"
    try:
        done = await (
            them.txn()
            .at(source[0])
            .if_(Client.key(source[1]).value == before.value)
            .then(Ops.put(source[1], packed(unpacked(before.value)[0] - amount, memo)))
            .at(target[0])
            .if_(Client.key(target[1]).value == after.value)
            .then(Ops.put(target[1], packed(unpacked(after.value)[0] + amount, memo)))
            .commit()
        )
    except TransactionAborted:
        return "aborted"
    except CellsUnavailable:
        return "unavailable"
    except ClientError:
        return NOT_KNOWN
    return DONE if done.succeeded else "differs"


async def work(them: Cells, cells: list[str], accounts: int, name: str, chance: Random) -> None:
    for number in itertools.count():
        source, target = (account(cells, n) for n in chance.sample(range(accounts), 2))
        if source[0] == target[0]:
            continue
        memo = f"{name}.{number}"
        print(memo, await transfer(them, source, target, chance.randint(1, MOST), memo), flush=True)


async def main(endpoints: dict[str, list[str]], accounts: int, life: str, seed: str) -> None:
    async with reach(endpoints, TIMEOUT_SECONDS) as them:
        tasks = (work(them, list(endpoints), accounts, f"{life}.{n}", Random(f"{seed} {n}")) for n in range(TASKS))
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
