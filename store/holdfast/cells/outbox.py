"""Hands messages over from one cell to another: in order, each once, and without one of them waiting for the other.

A message is put into the *outbox* of its source in a transaction of that cell, with whatever else that changes. A
*courier* reads it there and brings it to the destination, whose *inbox* counts: the transaction that carries out
message N is made only if N-1 was the last, and notes N itself. So any number of couriers may be at work, and each may
stop, or be late, or repeat what it did. What has arrived is removed from the outbox.

Here are the rules as functions; `cells.queue` has them as transactions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Outbox:
    """`messages`: the first of them has the number `acknowledged + 1`."""

    acknowledged: int = 0
    messages: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        return self.acknowledged + len(self.messages)


@dataclass(frozen=True, slots=True)
class Inbox:
    """`last`: the number of the last message. `done`: what was carried out."""

    last: int = 0
    done: tuple[str, ...] = ()


def send(outbox: Outbox, message: str) -> Outbox:
    return replace(outbox, messages=(*outbox.messages, message))


def deliver(inbox: Inbox, number: int, message: str) -> Inbox:
    """Carry out the message with this number, if it is the next one. The answer is `last`."""
    if number != inbox.last + 1:
        return inbox
    return Inbox(number, (*inbox.done, message))


def acknowledge(outbox: Outbox, last: int) -> Outbox:
    """Remove what has arrived: all up to the number `last`, which the inbox has said."""
    arrived = max(0, min(last, outbox.last) - outbox.acknowledged)
    return Outbox(outbox.acknowledged + arrived, outbox.messages[arrived:])
