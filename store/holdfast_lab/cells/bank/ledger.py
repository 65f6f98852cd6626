"""What a bank must look like from outside, whoever was killed. Pure.

B1. The sum of all accounts stays, and no account is below zero.
B2. A transfer is made once and whole: both accounts change, by the same amount.
B3. What was acknowledged is made; what was refused is not; nothing is made after it was settled.

Each account names the transfer that changed it last, in a *memo*: LIFE.TASK.NUMBER, from the life of the process that
made it. So the changes of all accounts, which watches tell, are the transfers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from holdfast_lab.sim.violation import check

DONE = "done"
NOT_KNOWN = "not known"
REFUSED = ("aborted", "differs", "unavailable", "not begun")


def packed(balance: int, memo: str) -> str:
    """The value of an account."""
    return f"{balance} {memo}"


def unpacked(value: bytes) -> tuple[int, str]:
    balance, memo = value.decode().split(" ")
    return int(balance), memo


def life_of(memo: str) -> int:
    return int(memo.partition(".")[0])


class Ledger:
    """`balances`: of each account at the beginning."""

    def __init__(self, balances: Mapping[str, int]) -> None:
        self.balances = dict(balances)
        self.told: Counter[str] = Counter()
        self.made = 0
        self._sum = sum(balances.values())
        self._moves: dict[str, list[tuple[str, int]]] = {}  # since the last settlement, by memo
        self._said: dict[str, str] = {}
        self._settled = 0  # lives up to this one are over

    def said(self, memo: str, what: str) -> None:
        """Its coordinator says what became of a transfer."""
        self.told[what] += 1
        self._said[memo] = what

    def written(self, account: str, value: bytes) -> None:
        """An account has changed."""
        balance, memo = unpacked(value)
        check(balance >= 0, "B1", f"{account} has {balance} after the transfer {memo}")
        check(life_of(memo) > self._settled, "B3", f"the transfer {memo} changes {account} after it was settled")
        self._moves.setdefault(memo, []).append((account, balance - self.balances[account]))
        self.balances[account] = balance

    def settle(self, found: Mapping[str, int], life: int) -> None:
        """Nothing is open, and all changes were told; `found` is what the accounts have. All lives up to `life` are
        over. Raises Violation."""
        total = sum(found.values())
        check(total == self._sum, "B1", f"the sum of all accounts is {total}, it was {self._sum}; {self._not_whole()}")
        check(found == self.balances, "B1", f"the accounts have {found}, and changed to {self.balances}")
        not_whole = self._not_whole()
        check(not not_whole, "B2", not_whole)
        for memo, what in self._said.items():
            if what == DONE:
                check(memo in self._moves, "B3", f"the transfer {memo} was acknowledged and is not made")
            elif what in REFUSED:
                check(memo not in self._moves, "B3", f"the transfer {memo} is made, though its answer was: {what}")
        self.made += len(self._moves)
        self._moves.clear()
        self._said.clear()
        self._settled = life

    def _not_whole(self) -> str:
        for memo, moves in self._moves.items():
            if len(moves) != 2 or sum(by for _, by in moves) != 0:
                changes = ", ".join(f"{account} by {by:+}" for account, by in moves)
                return f"the transfer {memo}, {self._said.get(memo, 'not answered')}, changed {changes}"
        return ""
