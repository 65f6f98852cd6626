"""What programs did with registers and transactions, and the checks of a run: `run` has those of the set of cells.

| Check | What holds |
|---|---|
| R1 | a change is made once at most |
| R2 | what a change or a read returned was the value at some time: it is a beginning of the last value |
| R3 | a change that is said to be made is, and one that is said not to be made is not |
| R4 | who begins after another one ended sees at least as much |
| S1 | in the end each cell of the set counts |
| S2 | a version of the set is one set |
| T1 | the balances are those that the receipts say: no write is lost, and none is made twice |
| T2 | a transaction is made in all of its cells, or in none |
| T3 | a transaction that is said to be made is, and one that is said not to be made is not |
| T4 | nothing is left of transactions that are over |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast_lab.sim.violation import check


@dataclass(slots=True)
class Operation:
    """On a register whose value is a list of changes. `made`: None if it is not known. `value`: what it returned."""

    id: str  # of a change; empty: a read
    began: float
    ended: float = float("inf")
    made: bool | None = None
    value: list[str] | None = None


@dataclass(slots=True)
class Transfer:
    """`source` and `destination`: account and cell."""

    id: str
    source: tuple[str, str]
    destination: tuple[str, str]
    amount: int
    made: bool | None = None


@dataclass(slots=True)
class History:
    registers: dict[str, list[Operation]] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)

    def operation(self, register: str, id: str, now: float) -> Operation:
        made = Operation(id, now)
        self.registers.setdefault(register, []).append(made)
        return made

    @property
    def count(self) -> int:
        return len(self.transfers) + sum(map(len, self.registers.values()))

    @property
    def acknowledged(self) -> int:
        operations = [op for of in self.registers.values() for op in of]
        return sum(op.value is not None for op in operations) + sum(t.made is not None for t in self.transfers)


def check_register(name: str, operations: list[Operation], last: list[str]) -> None:
    check(len(set(last)) == len(last), "R1", f"{name}: a change was made twice: {last}")
    for op in operations:
        if op.value is not None:
            what = f"{name}: {op.id or 'a read'} returned {op.value}, and the value became {last}"
            check(op.value == last[: len(op.value)], "R2", what)
        if op.id and op.made is not None:
            what = f"{name}: the change {op.id} is said to be {_made(op.made)}, the value is {last}"
            check((op.id in last) is op.made, "R3", what)
            check(op.value is None or op.id in op.value, "R3", f"{name}: {op.id} returned {op.value}")
    _check_order(name, [op for op in operations if op.value is not None])


def _check_order(name: str, operations: list[Operation]) -> None:
    ended = sorted(operations, key=lambda op: op.ended)
    at, most = 0, 0
    for op in sorted(operations, key=lambda op: op.began):
        while at < len(ended) and ended[at].ended < op.began:
            most = max(most, len(ended[at].value or ()))
            at += 1
        what = (
            f"{name}: {op.id or 'a read'} began at {op.began:.3f} and saw {op.value}; {most} changes were seen before"
        )
        check(len(op.value or ()) >= most, "R4", what)


def _made(made: bool | None) -> str:
    return "made" if made else "not made"


def check_transfers(
    transfers: list[Transfer], data: Mapping[str, Mapping[str, str]], accounts: Mapping[str, str], initial: int
) -> None:
    """`data`: of each cell; `accounts`: the cell of each."""
    balances = dict.fromkeys(accounts, initial)
    for transfer in transfers:
        (source, at), (destination, to) = transfer.source, transfer.destination
        receipts = [f"/receipt/{transfer.id}" in data[cell] for cell in (at, to)]
        check(receipts[0] == receipts[1], "T2", f"{transfer} has receipts: {receipts}")
        said = f"{transfer} is said to be {_made(transfer.made)}, and is {_made(receipts[0])}"
        check(transfer.made in (None, receipts[0]), "T3", said)
        if receipts[0]:
            balances[source] -= transfer.amount
            balances[destination] += transfer.amount
    found = {account: int(data[cell][account]) for account, cell in accounts.items()}
    check(found == balances, "T1", f"the accounts have {found}; by the receipts they have {balances}")


def check_nothing_is_left(data: Mapping[str, Mapping[str, str]]) -> None:
    for cell, of in data.items():
        for prefix in ("/cells/transactions/", "/cells/intents/", "/cells/registers/decision."):
            left = [key for key in of if key.startswith(prefix)]
            check(not left, "T4", f"{cell} still has {left[:3]}")
