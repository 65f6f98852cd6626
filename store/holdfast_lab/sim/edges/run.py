"""A run with edge replicas that follow members and each other, while members have all their faults."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from holdfast.edge.upstream import Followers
from holdfast.member.interface import Answer

from holdfast_lab.sim.edges.acknowledged import Acknowledged
from holdfast_lab.sim.edges.edge import SimEdge
from holdfast_lab.sim.mix import SECOND, Mix, draw
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.simulation import Run
from holdfast_lab.sim.world import World

SECONDS = 40
SETTLE_NS = 30 * SECOND

EDGES_SOMETIMES = (
    "replica follows a replica",
    "replica would follow itself",
    "replicas follow each other in a circle",
    "replica resumed",
    "replica took a snapshot",
    "replica lost power",
    "replica reads slowly",
    "replica fell behind the history",
    "replica has other prefixes",
    "replica shows a part of its prefixes",
    "replica took a part",
    "replica waits for a member that is behind",
)


def _mix(seed: int, without: Collection[str]) -> Mix:
    """Lost disks and state rot are the main simulation's: a write that is lost with them was never acknowledged."""
    return replace(draw(World(seed).chance("mix"), without), replicas=0, caches=0)


class EdgesRun(Run):
    def __init__(self, seed: int, *, seconds: int = 0, without: Collection[str] = (), keep_trace: int = 400) -> None:
        super().__init__(
            seed, seconds=seconds or SECONDS, mix=_mix(seed, without), keep_trace=keep_trace, history=False
        )
        world, chance = self.world, self.world.chance("edges")
        self._acknowledged = Acknowledged()
        followers = Followers(most_snapshots=2, chunk_rows=2)
        self._edges: list[SimEdge] = []
        for number in range(chance.randrange(2, 8)):
            self._edges.append(SimEdge(self.ledger, number, followers, lambda: self._edges, self._acknowledged))
        self._streams |= {edge.stream: edge for edge in self._edges}
        world.note(f"{len(self._edges)} replicas")

    def answered(self, node: Node, answer: Answer) -> None:
        if answer.error is None and answer.seq:
            self._acknowledged.note(self.world.now, answer.revision)
        super().answered(node, answer)

    def _check_end(self) -> None:
        for edge in self._edges:
            edge.hurry()
        self.world.run_until(self.world.now + SETTLE_NS)
        super()._check_end()
        for edge in self._edges:
            edge.check_end()
