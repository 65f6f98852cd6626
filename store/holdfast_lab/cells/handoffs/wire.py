"""What the messages of this proof write, and how a destination shows that each came once and in order. Pure.

Message N of a sender writes N to one of the sender's few keys, so that millions of them leave only these keys. One
transaction of the destination carries many messages, and none writes a key twice, so messages that follow each other
have different keys: there are as many *lanes* as a transaction has messages.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cells import Message
from holdfast.cells.queue import AT_ONCE
from holdfast.client.txn import Ops

from holdfast_lab.sim.violation import check

SOURCE, DESTINATION = "eu", "us"
PREFIX = "/handoff/"
LANES = AT_ONCE


def message(sender: int, number: int) -> Message:
    return Message([Ops.put(f"{PREFIX}{sender}/{number % LANES}", str(number))])


def sent_key(sender: int) -> str:
    """Of the source: how many messages the sender has sent."""
    return f"/sent/{sender}"


def share(messages: int, senders: int, sender: int) -> int:
    """How many of all messages this sender sends."""
    return messages // senders + (sender < messages % senders)


class Judge:
    """Sees each revision of the destination. The numbers of a sender must be 1, 2, 3 and so on; inside one revision all
    is written at once, so there the order is that of the numbers."""

    def __init__(self, senders: int) -> None:
        self.last = dict.fromkeys(range(senders), 0)
        self.transactions = 0

    @property
    def arrived(self) -> int:
        return sum(self.last.values())

    def seen(self, revision: int, written: Iterable[tuple[str, bytes]]) -> None:
        """All that was written at a revision. Raises Violation."""
        self.transactions += 1
        for number, sender in sorted((int(value), self._sender(key)) for key, value in written):
            due = self.last[sender] + 1
            wrong = "is missing" if number > due else "comes a second time, or late"
            what = f"at revision {revision} message {number} of sender {sender} comes, and {due} is due"
            check(number == due, "Q1", f"{what}: {min(number, due)} {wrong}")
            self.last[sender] = number

    @staticmethod
    def _sender(key: str) -> int:
        return int(key.removeprefix(PREFIX).partition("/")[0])
