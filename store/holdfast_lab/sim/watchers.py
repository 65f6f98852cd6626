"""Watch clients: each must get every change that it asked for, in order, once, whole revisions at a time (I11)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from holdfast.keyrange import within
from holdfast.kv.rows import DELETE, Change
from holdfast.watch.hub import Compacted, Delivery, Events, Progress
from holdfast.watch.watcher import Watcher

from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.violation import Violation, check
from holdfast_lab.sim.world import World

_RANGES: tuple[tuple[bytes, bytes | None], ...] = ((b"k", b"l"), (b"k0", b"k0\x00"), (b"k3", b"k6"), (b"", None))


class SimWatcher:
    """One watch, resumed at another member when its own is gone. `seen`: it got everything up to this revision."""

    def __init__(self, world: World, oracle: Oracle, number: int, nodes: Callable[[], list[Node]]) -> None:
        self._world = world
        self._oracle = oracle
        self._nodes = nodes
        self.stream = number
        self._chance: Random = world.chance(f"watcher/{number}")
        self._start, self._end = self._chance.choice(_RANGES)
        self._no_delete = self._chance.random() < 0.2
        self._node: Node | None = None
        self._position = 0  # position of the next event that is expected
        self._hurried = False
        self.seen = -1
        world.at(world.now + self._chance.randrange(2 * SECOND), self._connect)
        world.at(world.now + SECOND, self._ask_progress)

    def _wants(self, change: Change) -> bool:
        return within(change.key, self._start, self._end) and not (self._no_delete and change.type == DELETE)

    # ---- coming and going ----------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._node is not None:
            return
        usable = [n for n in self._nodes() if n.core is not None and n.core.machine.members and not n.removed]
        if not usable:
            self._world.at(self._world.now + 200 * MS, self._connect)
            return
        node = self._chance.choice(usable)
        assert node.core is not None
        assert node.hub is not None
        revision = node.core.machine.space.revision
        if self.seen < 0:
            self._begin_at(revision)
        elif self.seen > revision:
            self._world.sometimes("watch resumed at a member that is behind")
        else:
            self._world.sometimes("watch resumed")
        self._node = node
        node.hub.open(self.stream)
        watcher = Watcher(
            0,
            ((self._start, self._end),),
            self.seen + 1,
            prev_kv=True,
            no_delete=self._no_delete,
            progress=True,
        )
        node.hub.add(self.stream, watcher)
        node.poke()
        self._world.at(self._world.now + self._chance.randrange(8 * SECOND), self._change_pace, node, True)

    def _begin_at(self, revision: int) -> None:
        self.seen = revision
        self._position = self._oracle.position(revision)

    def _change_pace(self, node: Node, slow: bool) -> None:
        """The client reads slowly for a while, then again."""
        if node is not self._node or node.hub is None or self._hurried:
            return
        if slow:
            node.hub.block(self.stream)
            self._world.sometimes("watch stream blocked")
        else:
            node.hub.unblock(self.stream)
            node.poke()
        pause = self._chance.randrange(2 * SECOND if slow else 8 * SECOND)
        self._world.at(self._world.now + pause, self._change_pace, node, not slow)

    def gone(self, node: Node) -> None:
        if node is self._node:
            self._node = None
            self._world.at(self._world.now + self._chance.randrange(SECOND), self._connect)

    def leave(self) -> None:
        """Go to another member, like a client whose connection broke."""
        node = self._node
        if node is not None and node.hub is not None:
            node.hub.close(self.stream)
            self.gone(node)

    def hurry(self) -> None:
        """From now on, read without delay, and from a current member."""
        self._hurried = True
        node = self._node
        if node is not None and node.removed:
            self.leave()
        elif node is not None and node.hub is not None:
            node.hub.unblock(self.stream)
            node.poke()

    def _ask_progress(self) -> None:
        """Request progress of this stream. The answer must not be ahead of the events that arrived."""
        node = self._node
        if node is not None and node.hub is not None:
            progress = node.hub.progress(self.stream)
            if progress is not None:
                self.delivered(node, progress)
        self._world.at(self._world.now + SECOND // 2 + self._chance.randrange(2 * SECOND), self._ask_progress)

    # ---- what arrives --------------------------------------------------------------------------------------

    def delivered(self, node: Node, delivery: Delivery) -> None:
        check(node is self._node, "I11", f"watch {self.stream} is told something by {node.id:x}, which it left")
        if isinstance(delivery, Compacted):
            check(self.seen + 1 < delivery.compacted, "I11", f"watch {self.stream} at {self.seen} was called compacted")
            self._world.sometimes("watch compacted")
            self.seen = -1
            assert node.hub is not None
            node.hub.close(self.stream)
            self.gone(node)
        elif isinstance(delivery, Events):
            self._take(delivery.changes)
        elif isinstance(delivery, Progress):
            self._pass(delivery.revision, "it was told of progress")

    def _take(self, changes: list[Change]) -> None:
        events = self._oracle.events
        for change in changes:
            while self._position < len(events) and not self._wants(events[self._position]):
                self._position += 1
            right = events[self._position] if self._position < len(events) else None
            if right is None or not _same(right, change):
                raise Violation("I11", f"watch {self.stream} at {self.seen} was told {change}, not {right}")
            self._position += 1
        self._pass(changes[-1].revision, "it was told the rest of it")

    def _pass(self, revision: int, why: str) -> None:
        """All events up to `revision` should have arrived."""
        events = self._oracle.events
        while self._position < len(events) and events[self._position].revision <= revision:
            missed = events[self._position]
            if self._wants(missed):
                raise Violation("I11", f"watch {self.stream} has not been told {missed} when {why} at {revision}")
            self._position += 1
        self.seen = max(self.seen, revision)

    def check_end(self) -> None:
        """At the end of a run, no event is outstanding."""
        if self.seen >= 0:
            self._pass(self._oracle.revision, "everything was over")


def _same(right: Change, told: Change) -> bool:
    """If the previous value was compacted, it may be left out; it must not be wrong."""
    return right[:5] == told[:5] and told.previous in (None, right.previous)
