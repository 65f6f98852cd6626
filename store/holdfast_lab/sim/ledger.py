"""Where all clients' requests go out and answers come in, and what is known of leases and locks from their side."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.member.interface import Answer, Cancel, KeepAlive, Propose, Read
from holdfast.status import STOPPED

from holdfast_lab.sim.mix import SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.operations import Operation
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.violation import check
from holdfast_lab.sim.world import World


class RequestLedger:
    """Where all clients' requests go out and answers come in: ids, the history, and what the locks have granted."""

    def __init__(self, world: World, oracle: Oracle, nodes: Callable[[], list[Node]]) -> None:
        self.world = world
        self.oracle = oracle
        self.nodes = nodes
        self.history: list[Operation] = []
        self.leases: dict[int, Lease] = {}
        self.token = 0  # the highest that a lock's holder has shown to the store it protects
        self._ids = 0
        self._waiting: dict[int, tuple[Node, Callable[[Node, Answer], None]]] = {}

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def ask(self, node: Node, item: Propose | Read | KeepAlive, answered: Callable[[Node, Answer], None]) -> None:
        self._waiting[item.id] = (node, answered)
        node.give(item)

    def drop(self, id: int) -> bool:
        """Nobody waits for this any more."""
        found = self._waiting.pop(id, None)
        if found is not None:
            found[0].give(Cancel(id))
        return found is not None

    def answered(self, node: Node, answer: Answer) -> None:
        if answer.id:
            found = self._waiting.pop(answer.id, None)
            if found is not None:
                found[1](node, answer)

    def gone(self, node: Node) -> None:
        """Every connection to this node is closed."""
        for id in [id for id, (at, _) in self._waiting.items() if at is node]:
            self._waiting.pop(id)[1](node, Answer(id, STOPPED))

    def revoked(self, lease: int, proposed_at: int, slowest: float) -> None:
        """`lease` is revoked because a leader found it expired at `proposed_at`: not before its time (I12)."""
        known = self.leases.get(lease)
        if known is None or known.revoking:
            return
        self.world.sometimes("lease expired")
        age = proposed_at - known.renewed_at
        check(
            age >= known.ttl * SECOND * slowest,
            "I12",
            f"lease {lease:x} of {known.ttl} s is revoked {age / 1e9:.3f} s after it was renewed",
        )


class Lease:
    """What its owner knows: it was renewed by a request that began at `renewed_at`."""

    __slots__ = ("id", "renewed_at", "revoking", "ttl")

    def __init__(self, id: int, ttl: int, renewed_at: int) -> None:
        self.id = id
        self.ttl = ttl
        self.renewed_at = renewed_at
        self.revoking = False
