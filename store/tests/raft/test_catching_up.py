"""A follower that can be reached catches up: from every state of its progress, after every kind of lost contact.

The table of states and events is in `raft/progress.py`; each test here covers one row of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from holdfast.raft.messages import Append, AppendReply, Heartbeat
from holdfast.raft.progress import Mode, Progress
from holdfast.raft.types import Settings

from .cluster import ELECTION, MS, Cluster, to

SMALL = Settings(max_inflight_messages=2, max_message_bytes=64)


def lead(settings: Settings = SMALL) -> Cluster:
    """1 leads 2 and 3, and both replicate."""
    cluster = Cluster([1, 2, 3], settings=settings)
    cluster.elect(1)
    cluster.propose(1, b"first")
    cluster.settle()
    assert progress(cluster, 3).mode is Mode.REPLICATE
    return cluster


def progress(cluster: Cluster, member: int) -> Progress:
    found = cluster.nodes[1].progress(member)
    assert found is not None
    return found


def write(cluster: Cluster, count: int) -> None:
    """Entries that 1 and 2 commit; what is sent to 3 is lost or refused as the test has arranged."""
    for number in range(count):
        cluster.propose(1, b"entry %d" % number)
        cluster.settle(1, 2)


def compact(cluster: Cluster) -> None:
    cluster.nodes[1].compact(cluster.nodes[1].commit)


def send_snapshots(cluster: Cluster) -> None:
    """What the driver does: carry the state over, and report it."""
    for frm, member in cluster.snapshots:
        leader = cluster.nodes[frm]
        index, term, conf = leader.commit, leader.log.term(leader.commit), leader.conf
        assert term is not None
        if cluster.nodes[member].offer_snapshot(index, frm, leader.term):
            cluster.do(member, lambda raft: raft.restored(index, term, conf, 1, frm))  # noqa: B023  called at once
        cluster.do(frm, lambda raft: raft.snapshot_sent(member, ok=True))  # noqa: B023
    cluster.snapshots.clear()


def catches_up(cluster: Cluster, member: int = 3) -> None:
    """Within three seconds of being reachable, without a new write and without an election."""
    term = cluster.nodes[1].term
    for _ in range(30):
        cluster.pass_time(100 * MS)
        send_snapshots(cluster)
        cluster.settle()
        if cluster.nodes[member].log.last == cluster.nodes[1].log.last == cluster.nodes[member].commit:
            assert cluster.nodes[1].term == term
            return
    raise AssertionError(f"{member} stays behind: {progress(cluster, member).mode} {cluster.nodes[1].log.first}")


def cut_silently(cluster: Cluster) -> None:
    cluster.isolate(3)


def cut_towards(cluster: Cluster) -> None:
    """What the leader sends is lost; what the follower sends arrives."""
    cluster.cut |= {(1, 3), (2, 3)}


def cut_back(cluster: Cluster) -> None:
    """The follower receives everything, and its own messages are lost."""
    cluster.cut |= {(3, 1), (3, 2)}


def disconnect(cluster: Cluster) -> None:
    cluster.isolate(3)
    cluster.do(1, lambda raft: raft.suspect(3))


def crash(cluster: Cluster) -> None:
    cluster.crash(3)


@pytest.mark.parametrize("compacted", [False, True], ids=["log kept", "log compacted"])
@pytest.mark.parametrize("window", [1, 2, 256], ids=["window 1", "window 2", "window open"])
@pytest.mark.parametrize("lose", [cut_silently, cut_towards, cut_back, disconnect, crash])
def test_a_follower_that_is_reachable_again_catches_up(
    lose: Callable[[Cluster], None], window: int, compacted: bool
) -> None:
    """A leader that never noticed the loss kept a full window for ever, and sent nothing once its log was compacted."""
    cluster = lead(Settings(max_inflight_messages=window, max_message_bytes=64))
    lose(cluster)
    write(cluster, 20)
    if compacted:
        compact(cluster)
    cluster.heal()
    if 3 not in cluster.nodes:
        cluster.start(3)
    catches_up(cluster)


@pytest.mark.parametrize("compacted", [False, True], ids=["log kept", "log compacted"])
def test_a_follower_that_lost_touch_while_probed_catches_up(compacted: bool) -> None:
    cluster = lead()
    cluster.isolate(3)
    cluster.do(1, lambda raft: raft.suspect(3))
    assert (progress(cluster, 3).mode, progress(cluster, 3).paused) == (Mode.PROBE, True)
    write(cluster, 5)
    if compacted:
        compact(cluster)
    cluster.heal()
    catches_up(cluster)


def test_a_follower_that_lost_touch_during_a_snapshot_catches_up() -> None:
    cluster = lead()
    cluster.isolate(3)
    write(cluster, 5)
    compact(cluster)
    cluster.heal()
    cluster.pass_time(200 * MS)
    assert progress(cluster, 3).mode is Mode.SNAPSHOT
    assert cluster.snapshots == [(1, 3)]
    cluster.snapshots.clear()
    cluster.isolate(3)
    cluster.do(1, lambda raft: raft.snapshot_sent(3, ok=False))
    write(cluster, 5)
    cluster.heal()
    catches_up(cluster)


def test_a_snapshot_that_the_log_has_left_behind_is_sent_again() -> None:
    cluster = lead()
    cluster.isolate(3)
    write(cluster, 5)
    compact(cluster)
    cluster.heal()
    cluster.pass_time(200 * MS)
    assert cluster.snapshots == [(1, 3)]
    cluster.snapshots.clear()
    write(cluster, 5)
    compact(cluster)
    cluster.do(1, lambda raft: raft.snapshot_sent(3, ok=True))  # of a state that is older than the log by now
    catches_up(cluster)


def test_an_answered_heartbeat_asks_once_for_what_a_full_window_has_out() -> None:
    """An empty append per answered heartbeat, not the whole window again: a slow disk is no loss."""
    cluster = lead()
    for number in range(6):
        cluster.propose(1, b"entry %d" % number)
    held = cluster.drop(lambda m: m.to == 3 and isinstance(m, Append))
    assert not progress(cluster, 3).may_send()
    cluster.now += 100 * MS
    cluster.do(1, lambda raft: raft.tick(cluster.now))
    cluster.deliver(lambda m: isinstance(m, Heartbeat))
    cluster.deliver(to(1))
    asked = cluster.drop(lambda m: m.to == 3 and isinstance(m, Append))
    assert [(m.entries, m.prev_index) for m in asked if isinstance(m, Append)] == [([], progress(cluster, 3).next - 1)]
    cluster.mail += [*held, *asked]  # they were only late
    cluster.settle()
    assert progress(cluster, 3).mode is Mode.REPLICATE
    assert cluster.nodes[3].log.last == cluster.nodes[1].log.last


def test_late_acknowledgements_do_not_confuse_a_leader_that_begins_again() -> None:
    cluster = lead()
    cluster.propose(1, b"out")
    cluster.deliver(lambda m: m.to == 3)
    cluster.sync(3)
    late = cluster.drop(lambda m: isinstance(m, AppendReply) and m.frm == 3)
    assert late
    cluster.do(1, lambda raft: raft.suspect(3))
    cluster.mail += late
    cluster.settle()
    assert progress(cluster, 3).mode is Mode.REPLICATE
    assert progress(cluster, 3).match == cluster.nodes[1].log.last


def test_a_leader_that_lost_its_connections_still_steps_down_without_a_quorum() -> None:
    cluster = lead()
    cluster.isolate(1)
    for member in (2, 3):
        cluster.do(1, lambda raft, m=member: raft.suspect(m))  # type: ignore[misc]
    cluster.pass_time(3 * ELECTION)
    assert cluster.leaders != [1]
