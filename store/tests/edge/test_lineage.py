"""A replica goes over to a restored cluster by itself, never back, and never to a foreign one."""

from __future__ import annotations

from functools import partial

import pytest
from holdfast.edge.core import EarlierEpoch, ReplicaCore, WrongCluster, ranges_of
from holdfast.edge.data import BrokenUpstream, Position
from holdfast.edge.lineage import Lineage, Relation
from holdfast.kv.copied import CopiedSpace
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import holdfast_pb2
from holdfast.status import RequestError
from holdfast.watch.hub import Compacted
from holdfast.watch.watcher import Watcher

from .test_upstream import Host

FIRST = Lineage.of(7, 1, 0)
RESTORED = Lineage.of(8, 2, 7, restored_from=3)


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        (FIRST, FIRST, Relation.SAME),
        (Lineage.of(7, 1, 7), FIRST, Relation.SAME),
        (RESTORED, FIRST, Relation.LATER),
        (FIRST, RESTORED, Relation.EARLIER),
        (Lineage.of(9, 3, 7), FIRST, Relation.LATER),
        (Lineage.of(9, 3, 7), RESTORED, Relation.LATER),
        (Lineage.of(9, 2, 7), RESTORED, Relation.FOREIGN),
        (Lineage.of(9, 9, 9), FIRST, Relation.FOREIGN),
        (Lineage.of(8, 1, 0), FIRST, Relation.FOREIGN),
    ],
)
def test_relations(one: Lineage, other: Lineage, relation: Relation) -> None:
    assert one.relation(other) is relation


def test_up_to_where_two_histories_are_the_same() -> None:
    """It is a question of what was lost: too much is kept rather than too little."""
    child = Lineage.of(8, 2, 7, 3, parent=7)
    other = Lineage.of(9, 2, 7, 5, parent=7)
    grandchild = Lineage.of(10, 3, 7, 9, parent=8)
    assert (child.shared(FIRST), FIRST.shared(child)) == (3, 3)
    assert (child.shared(other), other.shared(child)) == (3, 3)
    assert (grandchild.shared(child), grandchild.shared(other), grandchild.shared(FIRST)) == (9, 0, 0)
    assert RESTORED.shared(FIRST) == 3, "a cluster does not say which one it was restored from"


class Restored(Host):
    """The cluster after a restore from its revision 3, followed by a replica that has revision 5. As with
    --keep-revisions, it gives the same revisions anew."""

    def __init__(self, core: ReplicaCore) -> None:
        super().__init__()
        self.lineage = RESTORED
        self.core = core
        self.put(b"/a/1", b"/a/2")
        self.put(b"/a/other")


def after(*revisions: bytes) -> Host:
    host = Host()
    for key in revisions:
        host.put(key)
    host.follow()
    return host


def test_the_restored_cluster_replaces_what_is_here_even_by_smaller_revisions() -> None:
    before = after(b"/a/1", b"/a/2", b"/a/3", b"/a/4")
    core = before.core
    watermark = core.position.watermark
    host = Restored(core)
    upstream = host.connect(2)
    host.take(upstream.tick(0))
    assert core.superseded
    assert host.content(core.space) == before.content(before.space), "served until the snapshot is whole"
    while host.upstream.filling:
        host.take(upstream.fill(0))
    host.tell()
    assert not core.superseded
    host.same()
    assert core.position.lineage == RESTORED
    assert core.position.watermark < watermark
    again = ReplicaCore(core.here.store, ranges_of(["/a/"]))
    assert again.position == core.position


def test_the_cluster_before_the_restore_is_followed_no_more() -> None:
    before = after(b"/a/1")
    host = Restored(before.core)
    host.connect(2)
    host.follow()
    before.core = host.core
    with pytest.raises(RequestError, match="which a restore began, and this is the cluster before it"):
        before.connect(3)
    hello = holdfast_pb2.FollowHello(cluster_id=7, epoch=1, filter_version=host.core.filter_version)
    with pytest.raises(EarlierEpoch):
        host.core.hello(hello)


def test_nor_while_nothing_has_come_of_a_later_snapshot() -> None:
    """What is here says of which epoch the replica is, also once an empty store waits for the snapshot."""
    before = after(b"/a/1")
    host = Restored(before.core)
    host.connect(2)
    host.follow()
    core = before.core = host.core
    core.build(MemoryStore())
    with pytest.raises(RequestError, match="which a restore began, and this is the cluster before it"):
        before.connect(3)
    hello = holdfast_pb2.FollowHello(cluster_id=7, epoch=1, filter_version=core.filter_version, snapshot=True)
    with pytest.raises(EarlierEpoch):
        core.hello(hello)
    assert host.connect(4).tick(0), "the restored cluster is followed"


def test_a_foreign_cluster_and_one_that_continues_across_a_restore_are_left() -> None:
    core = after(b"/a/1").core
    foreign = holdfast_pb2.FollowHello(cluster_id=9, epoch=5, filter_version=core.filter_version, snapshot=True)
    with pytest.raises(WrongCluster):
        core.hello(foreign)
    later = holdfast_pb2.FollowHello(cluster_id=9, epoch=5, lineage=7, filter_version=core.filter_version)
    with pytest.raises(BrokenUpstream):
        core.hello(later)


def test_a_position_of_version_0_1_is_of_the_first_cluster() -> None:
    assert Position(cluster_id=7, epoch=1, watermark=5, floor=5).lineage == FIRST


def test_who_follows_a_replica_that_goes_over_begins_anew() -> None:
    host = after(b"/a/1")
    told = ""
    host.lineage = RESTORED
    for step in (partial(host.upstream.tick, 0), partial(host.upstream.probed, 1, 2)):
        try:
            step()
        except RequestError as error:
            told = error.refusal.message
        assert "the cluster was restored" in told


def test_a_follower_that_waits_is_not_told_of_revisions() -> None:
    """They may be of the history after a restore, which it was not told of."""
    host = after(b"/a/1", b"/a/2")
    behind = Host()
    behind.core = host.core
    upstream = behind.connect(2)
    assert upstream.tick(0) == [], "it is ahead of this upstream"
    assert upstream.probed(1, 5) == []


def test_watches_end_where_another_history_begins() -> None:
    """Those that wait for a future revision, too: it would be of another change."""
    served = after(b"/a/1", b"/a/2").served
    served.hub.open(5)
    served.hub.add(5, Watcher(0, ((b"/a/", b"/a0"),), 0))
    served.hub.add(5, Watcher(1, ((b"/a/", b"/a0"),), 100))
    served.replace(CopiedSpace(Pending(MemoryStore()), 3, 3, 4), another_history=True)
    ended = [d for d in served.publish() if d.stream == 5]
    assert [type(d) for d in ended] == [Compacted, Compacted]
