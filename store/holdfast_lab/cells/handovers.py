"""All states of a queue between two cells, of which any number of couriers take care.

They may stop at any point, and what they send may be late, or arrive again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from holdfast.cells.outbox import Inbox, Outbox, acknowledge, deliver, send

MESSAGES = ("a", "b", "c")
NOTHING_SENT, NOTHING_DONE = Outbox(), Inbox()


@dataclass(frozen=True, slots=True)
class World:
    """`deliveries` and `acknowledgements` are on their way, and may arrive any number of times."""

    outbox: Outbox = NOTHING_SENT
    inbox: Inbox = NOTHING_DONE
    sent: int = 0
    deliveries: frozenset[tuple[int, str]] = frozenset()
    acknowledgements: frozenset[int] = frozenset()
    half: frozenset[tuple[int, str]] = frozenset()  # of a mutant: carried out, and not counted yet


class Handovers:
    """`deliver` and `acknowledge` may be replaced by mutants."""

    deliver = staticmethod(deliver)
    acknowledge = staticmethod(acknowledge)

    def nexts(self, world: World) -> Iterator[World]:
        if world.sent < len(MESSAGES):
            yield replace(world, outbox=send(world.outbox, MESSAGES[world.sent]), sent=world.sent + 1)
        if world.outbox.messages:  # a courier reads the first one
            first = world.outbox.acknowledged + 1, world.outbox.messages[0]
            yield replace(world, deliveries=world.deliveries | {first})
        for number, message in world.deliveries:
            yield from self.arrive(world, number, message)
        for last in world.acknowledgements:
            yield replace(world, outbox=self.acknowledge(world.outbox, last))

    def arrive(self, world: World, number: int, message: str) -> Iterator[World]:
        inbox = self.deliver(world.inbox, number, message)
        yield replace(world, inbox=inbox, acknowledgements=world.acknowledgements | {self.told(inbox, number)})

    def told(self, inbox: Inbox, number: int) -> int:
        return inbox.last

    def wrong(self, world: World) -> str:
        done = world.inbox.done
        if done != MESSAGES[: len(done)]:
            return f"carried out were {done}"
        missing = set(MESSAGES[: world.sent]) - set(done) - set(world.outbox.messages)
        if missing:
            return f"{sorted(missing)} are neither carried out nor in the outbox"
        return ""
