"""A simulated replica that also feeds others, and that knows how old its data can be.

Invariants, besides those of every replica (I11):
I19. Once a probe that was sent at some time is answered and reached, the replica has every write that was acknowledged
     before that time: also if the answer came through other replicas.
I20. No replica follows itself, directly or through others, for longer than a message takes to go around.
I21. A replica whose cluster was restored goes over to the restored one as a whole, and never back. While its data is of
     the history before, it says nothing of its age.
I22. What a replica shows it shows until it starts again: what takes its place does so as a whole. Of a first snapshot
     nothing is shown before it is whole. And what it has of a snapshot is what the cluster had (I10), so that a key
     that was deleted between two parts is never shown.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.edge.core import Loaded, lineage_of, ranges_of
from holdfast.edge.lineage import Lineage
from holdfast.edge.probes import Probes
from holdfast.edge.source import ReplicaSource
from holdfast.edge.upstream import Followers, Source
from holdfast.kv.rows import Change
from holdfast.member.interface import Answer, Read
from holdfast.proto import holdfast_pb2
from holdfast.watch.hub import Hub

from holdfast_lab.sim.edges.acknowledged import Acknowledged
from holdfast_lab.sim.edges.reports import SimReports, Truth
from holdfast_lab.sim.edges.restored import RestoredCluster
from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.replicas import Followed, SimReplica
from holdfast_lab.sim.violation import check

PROBE_NS = SECOND
READ_NS = 5 * SECOND
LOOP_NS = 5 * SECOND
_CHOICES = (["k"], ["k1", "k2"], ["k0", "k4", "k7"], ["k1", "k4"], ["k2", "k0", "q"])


class SimEdge(SimReplica):
    """Follows a member or another replica, whichever it finds."""

    def __init__(
        self,
        ledger: RequestLedger,
        number: int,
        followers: Followers,
        others: Callable[[], list[SimEdge]],
        acknowledged: Acknowledged,
        reported: Truth,
        restored: Callable[[], RestoredCluster | None] = lambda: None,
    ) -> None:
        self._acknowledged_first = acknowledged
        self._restored = restored
        self._epoch = 0  # the highest that it ever had
        super().__init__(ledger.world, ledger.oracle, number, ledger.nodes, followers)
        self._ledger = ledger
        self._others = others
        self._children: dict[int, SimEdge] = {}
        self._hub = Hub(self.core.space)
        self._poked = False
        self._probes = Probes()
        self._looped_since = 0
        chance = self._world.chance(f"reports/{number}")
        self.reports = SimReports(ledger, chance, f"n{number}", reported, follows=self._follows, sync=self._sync)
        self.reports.started(self.core.notes)
        self._world.at(self._world.now + self._chance.randrange(PROBE_NS), self._probe_regularly)

    def _is_of_restored(self) -> bool:
        restored = self._restored()
        return restored is not None and self.core.position.lineage == restored.lineage

    def _truth(self, lineage: Lineage) -> Oracle:
        restored = self._restored()
        return restored.oracle if restored is not None and lineage == restored.lineage else self._first_oracle

    @property
    def _acknowledged(self) -> Acknowledged:
        restored = self._restored()
        return restored.acknowledged if restored is not None and self._is_of_restored() else self._acknowledged_first

    # ---- as a follower -------------------------------------------------------------------------------------

    def _usable(self) -> list[Followed]:
        restored = self._restored()
        members = super()._usable()
        if restored is not None and (self._hurried or self._chance.random() < 0.7):
            members = [restored]
        others: list[Followed] = [e for e in self._others() if e is not self and e.feeds(self)]
        if self._hurried and restored is not None:
            others = [e for e in self._others() if e in others and e._is_of_restored()]
        if others and (not members or self._chance.random() < 0.6):
            return others
        return members

    def _refused(self) -> None:
        self._world.sometimes("replica refuses the cluster before the restore")
        restored = self._restored()
        held = (self.core._followed.position.lineage, self.core.position.lineage)
        ahead = restored is not None and restored.lineage in held
        check(ahead, "I21", "a replica was refused that is not ahead")
        self.leave()

    def _source_of(self, node: Followed) -> Source:
        if isinstance(node, RestoredCluster):
            node.children[self.stream] = self
            return node
        if not isinstance(node, SimEdge):
            return super()._source_of(node)
        self._world.sometimes("replica follows a replica")
        node._children[self.stream] = self
        return ReplicaSource(node.core, node._hub, node.poke)

    def gone(self, node: Followed) -> None:
        if node is not self._node:
            return
        if isinstance(node, SimEdge):
            node._children.pop(self.stream, None)
        if isinstance(node, RestoredCluster):
            node.children.pop(self.stream, None)
        self._probes.lost()
        self.core.left()
        super().gone(node)

    def _take(self, connection: int, frame: bytes) -> None:
        super()._take(connection, frame)
        self._probes.reached(self.core.position.watermark, self.core.position.lineage)
        self._check_bound()
        self._check_epoch()

    def _refilter(self) -> None:
        """It is started again with other prefixes."""
        for child in list(self._children.values()):
            child.gone(self)
        self.leave()
        before = self.core.shown
        self._ranges = ranges_of(self._chance.choice(_CHOICES))
        self.core = self._started()
        self._world.sometimes("replica has other prefixes" if before != self.core.intervals else "replica restarted")
        if self.core.shown and not self.core.whole:
            self._world.sometimes("replica shows a part of its prefixes")
        self._restarted()
        self.check()

    def _power_cut(self) -> None:
        for child in list(self._children.values()):
            child.gone(self)
        self._epoch = 0  # what was not synced is lost
        super()._power_cut()
        self._restarted(power_lost=True)

    def _restarted(self, *, power_lost: bool = False) -> None:
        self._hub = Hub(self.core.space)
        self._probes = Probes()
        self.reports.started(self.core.notes, power_lost=power_lost)

    def _follows(self) -> tuple[Followed | None, SimReports | None]:
        return self._node, self._node.reports if isinstance(self._node, SimEdge) else None

    def _sync(self) -> None:
        self._synced = self._store.snapshot()
        self._synced_building = None if self._building is None else self._building.snapshot()

    # ---- as an upstream ------------------------------------------------------------------------------------

    def feeds(self, other: SimEdge) -> bool:
        return self.core.complete and all(self.core.covers(low, high) for low, high in other.core.intervals)

    def _changed(self, changes: list[Change]) -> None:
        if changes:
            self._tell([changes])

    def _greeted(self, hello: holdfast_pb2.FollowHello) -> None:
        self._probes.greeted(lineage_of(hello))
        if self.core.superseded:
            self._world.sometimes("replica learns of a restore")

    def _replaced(self, loaded: Loaded) -> None:
        if loaded is Loaded.ANOTHER_HISTORY:
            self._world.sometimes("replica goes over to a restored cluster")
            self._hub.begin_anew(self.core.space)
        else:
            self._hub.replace_space(self.core.space)
        self._tell([])

    def poke(self) -> None:
        if not self._poked:
            self._poked = True
            self._world.at(self._world.now + MS, self._catch_up)

    def _catch_up(self) -> None:
        self._poked = False
        self._tell([])

    def _tell(self, revisions: list[list[Change]]) -> None:
        for delivery in (*self._hub.publish(revisions), *self._hub.catch_up()):
            child = self._children.get(delivery.stream)
            if child is not None:
                child.delivered(self, delivery)
        if self._hub.busy:
            self.poke()

    # ---- probes --------------------------------------------------------------------------------------------

    def _probe_regularly(self) -> None:
        self._probe()
        self._check_loop()
        if not self._hurried and self._chance.random() < 0.02:
            self._refilter()
        self._world.at(self._world.now + PROBE_NS, self._probe_regularly)

    def _probe(self) -> None:
        if self._node is not None and self._upstream is not None:
            id = self._probes.send(self._world.now)
            self._world.at(self._world.now + 5 * MS, self._asked, self._connection, id)

    def _asked(self, connection: int, id: int) -> None:
        """The probe has come to the upstream."""
        node, upstream = self._node, self._served(connection)
        if node is None or upstream is None:
            return

        def confirmed(revision: int | None) -> None:
            served = self._served(connection)
            if served is not None and revision is not None:
                self._send(lambda: served.probed(id, revision))

        if isinstance(node, SimEdge):
            node.confirm(confirmed)
            return
        if isinstance(node, RestoredCluster):
            confirmed(node.space.revision)
            return

        def answered(at: Node, answer: Answer) -> None:
            if answer.error is None and at.core is not None:
                confirmed(at.core.machine.space.revision)

        assert isinstance(node, Node)
        deadline = node.clock.local(self._world.now) + READ_NS
        self._ledger.ask(node, Read(self._ledger.next_id(), deadline), answered)

    def confirm(self, confirmed: Callable[[int | None], None]) -> None:
        self._probes.confirm(confirmed)
        if self._chance.random() < 0.5:  # else it waits for the next probe
            self._probe()

    def _probed(self, reply: holdfast_pb2.ProbeReply) -> None:
        self._probes.answered(reply.id, reply.revision)

    # ---- what is checked -----------------------------------------------------------------------------------

    def _check_bound(self) -> None:
        """I19."""
        at = self._probes.fresh_at
        if at is None or not self.core.complete:
            return
        acknowledged = self._acknowledged.before(at)
        watermark = self.core.position.watermark
        check(
            acknowledged <= watermark,
            "I19",
            f"a replica says that it has all before {at / 1e9:.3f}; revision {acknowledged} was acknowledged before "
            f"that, and it is at {watermark}",
        )

    def _check_epoch(self) -> None:
        """I21."""
        epoch = self.core.position.epoch
        check(epoch >= self._epoch, "I21", f"a replica went back from epoch {self._epoch} to {epoch}")
        silent = not self.core.superseded or self._probes.fresh_at is None
        check(silent, "I21", "a replica says how old data of the cluster before the restore is")
        self._epoch = epoch

    def _check_loop(self) -> None:
        """I20."""
        at: Followed | None = self._node
        for _ in range(len(self._others())):
            at = at._node if isinstance(at, SimEdge) else None
            if at is self:
                break
        if at is not self:
            self._looped_since = 0
            return
        self._world.sometimes("replicas follow each other in a circle")
        self._looped_since = self._looped_since or self._world.now
        check(self._world.now < self._looped_since + LOOP_NS, "I20", f"replica {self.stream} follows itself")

    def hurry(self) -> None:
        """Follow a member in the end, directly or through one that does."""
        super().hurry()
        self.reports.hurried = True
        restored, node = self._restored(), self._node
        if isinstance(node, SimEdge):
            good = not self.core.path.cut_off and (restored is None or node._is_of_restored())
        else:
            good = node is None or restored in (None, node)
        if not good:
            self.leave()

    def check_end(self) -> None:
        super().check_end()
        over = self._restored() is None or self._is_of_restored()
        check(over, "L1", "a replica did not go over to the restored cluster")
