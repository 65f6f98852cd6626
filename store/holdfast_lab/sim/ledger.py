"""Sends all clients' requests and receives the answers; knows leases and locks as the clients see them."""

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
    """Sends all clients' requests and receives the answers: request ids, the history, and tokens of locks."""

    def __init__(self, world: World, oracle: Oracle, nodes: Callable[[], list[Node]]) -> None:
        self.world = world
        self.oracle = oracle
        self.nodes = nodes
        self.history: list[Operation] = []
        self.leases: dict[int, Lease] = {}
        self.token = 0  # the highest that a holder has shown to the resource that the lock protects
        self._ids = 0
        self._waiting: dict[int, tuple[Node, Callable[[Node, Answer], None]]] = {}

    def next_id(self) -> int:
        self._ids += 1
        return self._ids

    def ask(self, node: Node, item: Propose | Read | KeepAlive, answered: Callable[[Node, Answer], None]) -> None:
        self._waiting[item.id] = (node, answered)
        node.give(item)

    def drop(self, id: int) -> bool:
        """The client does not wait for this request any more."""
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
        """All connections to this node are closed."""
        for id in [id for id, (at, _) in self._waiting.items() if at is node]:
            self._waiting.pop(id)[1](node, Answer(id, STOPPED))

    def revoked(self, lease: int, proposed_at: int, slowest: float) -> None:
        """A leader found `lease` expired at `proposed_at` and revokes it: this must not be early (I12)."""
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
    """What the owner knows: the last acknowledged renewal was a request sent at `renewed_at`."""

    __slots__ = ("id", "renewed_at", "revoking", "ttl")

    def __init__(self, id: int, ttl: int, renewed_at: int) -> None:
        self.id = id
        self.ttl = ttl
        self.renewed_at = renewed_at
        self.revoking = False
