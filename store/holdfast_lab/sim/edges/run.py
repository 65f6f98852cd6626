"""A run with edge replicas that follow members and each other, while members have all their faults."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from holdfast.edge.upstream import Followers
from holdfast.kv.store import MemoryStore
from holdfast.member.interface import Answer

from holdfast_lab.sim.edges.acknowledged import Acknowledged
from holdfast_lab.sim.edges.edge import SimEdge
from holdfast_lab.sim.edges.reports import Truth
from holdfast_lab.sim.edges.restored import RestoredCluster
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
    "replica lost power amid a snapshot",
    "replica resumed a snapshot",
    "replica builds a copy beside what it serves",
    "replica reads slowly",
    "replica fell behind the history",
    "replica has other prefixes",
    "replica shows a part of its prefixes",
    "replica took a part",
    "replica waits for a member that is behind",
    "replica learns of a restore",
    "replica goes over to a restored cluster",
    "replica refuses the cluster before the restore",
    "restored cluster gives revisions anew",
    "reports come late and twice",
    "reports go over a replica",
)
RESTORES = 0.5  # of the runs
BUMPS = (0, 5, 100_000)  # with 0, the same revisions are other changes


def _mix(seed: int, without: Collection[str]) -> Mix:
    """Lost disks and state rot are the main simulation's: a write that is lost with them was never acknowledged."""
    return replace(draw(World(seed).chance("mix"), without), replicas=0, caches=0)


class EdgesRun(Run):
    def __init__(self, seed: int, *, seconds: int = 0, without: Collection[str] = (), keep_trace: int = 400) -> None:
        super().__init__(
            seed, seconds=seconds or SECONDS, mix=_mix(seed, without), keep_trace=keep_trace, history=False
        )
        world, chance = self.world, self.world.chance("edges")
        self._chance = chance
        self._acknowledged = Acknowledged()
        self._reported = Truth()
        followers = Followers(most_snapshots=2, chunk_rows=2)
        self._edges: list[SimEdge] = []
        self._restored: RestoredCluster | None = None
        for number in range(chance.randrange(2, 8)):
            edge = SimEdge(
                self.ledger,
                number,
                followers,
                lambda: self._edges,
                self._acknowledged,
                self._reported,
                lambda: self._restored,
            )
            self._edges.append(edge)
        self._streams |= {edge.stream: edge for edge in self._edges}
        world.note(f"{len(self._edges)} replicas")
        if chance.random() < RESTORES:
            saved_at = chance.randrange(3 * SECOND, SECONDS * SECOND // 3)
            world.at(saved_at, self._save, saved_at + chance.randrange(SECONDS * SECOND // 3))

    def _save(self, restore_at: int) -> None:
        """Save a member's state, from which another cluster is made later."""
        up = [n for n in self.nodes.values() if n.core is not None and n.core.machine.members and not n.state_rotten]
        if up:
            self.world.at(restore_at, self._restore, self._chance.choice(up).store.snapshot())
        else:
            self.world.at(self.world.now + SECOND, self._save, restore_at + SECOND)

    def _restore(self, backup: MemoryStore) -> None:
        bump = self._chance.choice(BUMPS)
        self._restored = RestoredCluster(self.world, backup, self.ledger.oracle, bump)
        if not bump:
            self.world.sometimes("restored cluster gives revisions anew")

    def answered(self, node: Node, answer: Answer) -> None:
        if answer.error is None and answer.seq:
            self._acknowledged.note(self.world.now, answer.revision)
        super().answered(node, answer)

    def _check_end(self) -> None:
        if self._restored is not None:
            self._restored.quiet = True
        for edge in self._edges:
            edge.hurry()
        self.world.run_until(self.world.now + SETTLE_NS)
        super()._check_end()
        for edge in self._edges:
            edge.check_end()
        if self._restored is None:  # what was reported after the snapshot is gone
            space = next(n.core.machine.space for n in self.nodes.values() if n.core is not None and not n.removed)
            for edge in self._edges:
                edge.reports.check_end(space)
