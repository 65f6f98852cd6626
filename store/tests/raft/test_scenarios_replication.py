"""Scenarios: replication, commitment, reads and snapshots. The source is in each docstring."""

from __future__ import annotations

import pytest
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.log import Entry, Log
from holdfast.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply, TimeoutNow, Vote, VoteReply
from holdfast.raft.progress import Mode
from holdfast.raft.quorum import ConfState
from holdfast.raft.types import HardState, Settings

from .cluster import ELECTION, MS, Cluster, kind, to


def test_scenario_09_a_read_waits_for_the_first_commit_of_the_term() -> None:
    """etcd 7331, redisraft PR 22, tikv 6340: before it a leader does not know what is committed."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.propose(1, b"acknowledged")
    cluster.settle()
    committed = cluster.nodes[1].commit
    cluster.crash(1)
    cluster.do(3, lambda raft: raft.step(TimeoutNow(3, 1, raft.term)))
    cluster.sync(3)
    cluster.deliver()
    cluster.sync(2)
    cluster.deliver(kind(VoteReply))
    assert cluster.leaders == [3]
    cluster.read(3, 7)
    cluster.sync(3)
    cluster.deliver(kind(Heartbeat))
    cluster.deliver(kind(HeartbeatReply))
    assert 7 not in cluster.reads  # a quorum has said that 3 leads, and that is not enough
    cluster.settle()
    assert cluster.reads[7] > committed


def test_scenario_10_an_answer_to_an_older_round_confirms_no_newer_read() -> None:
    """etcd 20418: a delayed answer to a heartbeat was taken for one to a later question."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.now += 100 * MS
    cluster.do(1, lambda raft: raft.tick(cluster.now))
    cluster.deliver(kind(Heartbeat))
    old = cluster.drop(kind(HeartbeatReply))
    assert len(old) == 2
    cluster.read(1, 5)
    cluster.drop(kind(Heartbeat))
    for reply in old:
        cluster.do(1, lambda raft, m=reply: raft.step(m))  # type: ignore[misc]
    assert 5 not in cluster.reads
    cluster.read(1, 6)
    cluster.settle()
    assert {5, 6} <= set(cluster.reads)


def test_scenario_10_an_answer_to_a_round_that_was_never_asked_counts_for_nothing() -> None:
    """A broken member must not confirm reads of the future."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.do(1, lambda raft: raft.step(HeartbeatReply(1, 2, raft.term, 1 << 40)))
    cluster.isolate(1)
    cluster.read(1, 5)
    cluster.turn(1)
    assert 5 not in cluster.reads
    assert raft.is_leader


def test_scenario_11_a_restarted_member_does_not_take_its_old_commit_index_for_the_newest() -> None:
    """etcd 3879, raft 105: only the leader can say which index a read has to wait for."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.crash(2)
    cluster.propose(1, b"b")
    cluster.settle(1, 3)
    raft = cluster.start(2)
    assert raft.commit < cluster.nodes[1].commit
    assert raft.read(9) is False
    cluster.read(1, 9)
    cluster.settle(1, 3)
    assert cluster.reads[9] == cluster.nodes[1].commit


def test_scenario_12_a_lease_ends_before_the_promises_do() -> None:
    """Consul's leader lease, etcd 5451: the lease counts from when the round was sent, and less by the drift."""
    cluster = Cluster([1, 2, 3], settings=Settings(lease_reads=True))
    cluster.elect(1)
    cluster.read(1, 1)
    assert cluster.reads == {1: cluster.nodes[1].commit}  # at once, without a round of heartbeats
    cluster.isolate(1)
    sent = cluster.now
    cluster.now = sent + cluster.settings.lease_ns - MS
    cluster.do(1, lambda raft: raft.tick(cluster.now))
    cluster.read(1, 2)
    assert 2 in cluster.reads
    cluster.now += MS
    cluster.do(1, lambda raft: raft.tick(cluster.now))
    cluster.read(1, 3)
    assert 3 not in cluster.reads
    assert cluster.settings.lease_ns < cluster.settings.election_ns


def test_scenario_12_no_read_by_lease_after_a_handing_over_was_tried() -> None:
    """The member that was told to take over may do so at any later time, promises or not."""
    cluster = Cluster([1, 2, 3], settings=Settings(lease_reads=True))
    cluster.elect(1)
    cluster.do(1, lambda raft: raft.transfer(2))
    cluster.drop(kind(TimeoutNow))
    cluster.pass_time(ELECTION + 50 * MS)
    assert cluster.leaders == [1]
    assert not cluster.nodes[1].transferring
    cluster.cut |= {(1, 2), (1, 3)}
    cluster.read(1, 4)
    assert 4 not in cluster.reads


def test_scenario_20_a_commit_index_beyond_the_log_is_only_a_hint() -> None:
    """PySyncObj 197: the commit index was durable, the entries were not, and the member did not start."""
    cluster = Cluster([1, 2, 3])
    cluster.disks[1].hard_state = HardState(term=1, commit=99)
    raft = cluster.start(1)
    assert raft.commit == raft.log.last == 1


def test_scenario_21_entries_and_their_term_are_durable_together() -> None:
    """openraft io_ordering: an entry on the disk of a term that the disk does not know."""
    cluster = Cluster([1, 2, 3])
    append = Append(2, 1, 4, 1, 1, [Entry(2, 4, b"x")], 1)
    cluster.do(2, lambda raft: raft.step(append))
    (write,) = cluster.writes[2]
    assert write.hard_state is not None
    assert write.hard_state.term == 4
    assert [e.term for e in write.entries] == [4]


def test_scenario_22_an_entry_of_an_old_term_is_not_committed_by_counting() -> None:
    """Raft paper, figure 8."""
    cluster = Cluster([1, 2, 3, 4, 5], settings=Settings(max_message_bytes=10))
    cluster.elect(1)
    cluster.isolate(1, 2)
    old = cluster.propose(1, b"old")
    cluster.settle(1, 2)
    cluster.crash(1)
    cluster.heal()
    # 5 is elected by 3 and 4, writes something else, sends it to no other member, and crashes.
    cluster.do(5, lambda raft: raft.step(TimeoutNow(5, 1, raft.term)))
    cluster.sync(5)
    for members in ((3, 4), (5,)):
        cluster.deliver(lambda m, who=members: m.to in who and not isinstance(m, Append))  # type: ignore[misc]
        for member in members:
            cluster.sync(member)
    assert cluster.leaders == [5]
    cluster.crash(5)
    cluster.mail.clear()
    # 1 leads again, in a later term; a majority has its old entry, and only 1 has its new one.
    cluster.start(1)
    cluster.do(1, lambda raft: raft.step(Vote(1, 9, 3, 0, 0, True)))
    cluster.do(1, lambda raft: raft.step(TimeoutNow(1, 9, raft.term)))
    raft = cluster.nodes[1]
    for _ in range(20):
        cluster.sync(1)
        cluster.deliver(lambda m: not isinstance(m, Append) or [e.index for e in m.entries] == [old])
        for member in (2, 3, 4):
            cluster.sync(member)
    assert raft.leading is not None
    matches = sorted(progress.match for progress in raft.leading.progress.values())
    assert matches[2] >= old, "a majority has it"
    assert raft.commit < old, "and that alone does not commit it"
    cluster.settle()
    assert raft.commit == raft.log.last > old


def test_scenario_23_a_stale_refusal_moves_nothing() -> None:
    """CCF ackuracy: a refusal, or an answer to an empty append, gave a wrong match."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    for n in range(5):
        cluster.propose(1, b"%d" % n)
    cluster.settle()
    progress = raft.progress(2)
    assert progress is not None
    match, following = progress.match, progress.next
    cluster.do(1, lambda r: r.step(AppendReply(1, 2, r.term, False, 3, 2, 1)))
    assert (progress.match, progress.next, progress.mode) == (match, following, Mode.REPLICATE)
    # While probing, only the answer to the probe that is out counts.
    progress.probe(match + 1)
    cluster.do(1, lambda r: r.step(AppendReply(1, 2, r.term, False, 2, 1, 1)))
    assert (progress.match, progress.next) == (match, match + 1)


def test_scenario_23_a_refusal_of_what_was_sent_ahead_leads_to_probing() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.settle()
    cluster.propose(1, b"lost")
    cluster.drop(to(2))
    cluster.propose(1, b"next")
    cluster.settle()
    assert cluster.log(2) == cluster.log(1)
    progress = raft.progress(2)
    assert progress is not None
    assert progress.mode is Mode.REPLICATE


def test_scenario_24_a_write_that_was_overtaken_vouches_for_nothing_it_lost() -> None:
    """etcd async_storage_writes_append_aba_race: the write of entries that were replaced meanwhile completes."""
    cluster = Cluster([1, 2, 3])
    cluster.do(3, lambda raft: raft.step(Append(3, 1, 2, 1, 1, [Entry(2, 2, b"a"), Entry(3, 2, b"b")], 1)))
    cluster.do(3, lambda raft: raft.step(Append(3, 2, 3, 1, 1, [Entry(2, 3, b"c")], 1)))
    raft = cluster.nodes[3]
    cluster.sync(3, 1)
    assert raft.stable == 1
    assert not [m for m in cluster.mail if isinstance(m, AppendReply) and m.ok and m.term == 3]
    cluster.sync(3)
    assert raft.stable == 2
    assert [m.index for m in cluster.mail if isinstance(m, AppendReply) and m.ok and m.term == 3] == [2]


def test_scenario_24_a_late_append_cuts_nothing_that_agrees_with_it() -> None:
    """A delayed duplicate cut the committed end of the log."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    early = Append(2, 1, cluster.nodes[1].term, 1, 1, cluster.nodes[1].log.since(2)[:1], 1)
    for n in range(3):
        cluster.propose(1, b"%d" % n)
    cluster.settle()
    last = cluster.nodes[2].log.last
    cluster.do(2, lambda raft: raft.step(early))
    assert cluster.nodes[2].log.last == last


def test_scenario_26_a_single_member_commits_what_is_durable() -> None:
    """etcd 14370: it acknowledged before its own log was on the disk."""
    cluster = Cluster([1])
    cluster.elect(1)
    index = cluster.propose(1, b"x")
    assert cluster.nodes[1].commit < index
    cluster.sync(1)
    assert cluster.nodes[1].commit == index


def test_scenario_27_what_was_not_synced_was_not_acknowledged() -> None:
    """etcd 14140, 14143; Jepsen NATS 2.12.1: a majority lost its unsynced tail, and with it acknowledged writes."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    index = cluster.propose(1, b"x")
    cluster.deliver(kind(Append))  # at the others, on no disk
    assert not [m for m in cluster.mail if isinstance(m, AppendReply) and m.ok and m.index == index]
    for member in (2, 3):
        cluster.crash(member)
        cluster.start(member)
    assert cluster.nodes[1].commit < index


def test_scenario_29_a_follower_that_needs_a_snapshot_goes_on_after_it() -> None:
    """etcd 10308, 18055; raft 31: stuck probing, a gap between snapshot and log, a slow follower after compaction."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.isolate(3)
    for n in range(5):
        cluster.propose(1, b"%d" % n)
    cluster.settle(1, 2)
    raft.compact(raft.commit)
    cluster.heal()
    cluster.pass_time(300 * MS)
    assert cluster.snapshots == [(1, 3)]
    # Written while the snapshot is under way.
    cluster.propose(1, b"meanwhile")
    cluster.settle()
    index, term = raft.commit, raft.term
    follower = cluster.nodes[3]
    assert follower.offer_snapshot(index - 1, 1, term)
    cluster.do(3, lambda r: r.restored(index - 1, term, raft.conf, 1, 1))
    cluster.do(1, lambda r: r.snapshot_sent(3, True))
    cluster.settle()
    assert follower.log.last == raft.log.last
    # A second one, of what is here already, is only acknowledged.
    assert not follower.offer_snapshot(index - 1, 1, term)
    assert not follower.offer_snapshot(index - 1, 1, term - 1)
    cluster.turn(3)
    cluster.settle()
    progress = raft.progress(3)
    assert progress is not None
    assert progress.mode is Mode.REPLICATE


def test_scenario_29_a_snapshot_that_failed_is_tried_again() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"x")
    cluster.settle(1, 2)
    raft.compact(raft.commit)
    cluster.heal()
    cluster.pass_time(300 * MS)
    assert cluster.snapshots == [(1, 3)]
    cluster.do(1, lambda r: r.snapshot_sent(3, False))
    assert cluster.snapshots == [(1, 3)]  # not at once
    cluster.pass_time(300 * MS)
    assert cluster.snapshots == [(1, 3), (1, 3)]
    raft.snapshot_sent(9, True)  # a member that was removed


def test_scenario_30_flow_control_goes_on_after_a_pause() -> None:
    """etcd 14633 (replicate_pause): everything sent was lost, the window is full, nothing more is sent."""
    cluster = Cluster([1, 2, 3], settings=Settings(max_inflight_messages=3))
    raft = cluster.elect(1)
    cluster.settle()
    for n in range(10):
        cluster.propose(1, b"%d" % n)
        cluster.drop(to(3))
    cluster.settle(1, 2)
    progress = raft.progress(3)
    assert progress is not None
    assert not progress.may_send()
    cluster.pass_time(300 * MS)
    assert cluster.nodes[3].log.last == raft.log.last


# ---- what has no number ----------------------------------------------------------------------------------------


def test_logs_that_differ_are_made_equal_a_term_at_a_time() -> None:
    """Raft paper, figure 7; fast back-tracking (thesis section 5.3)."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.isolate(1)
    for n in range(20):
        cluster.propose(1, b"lost %d" % n)
    cluster.sync(1)
    cluster.pass_time(3 * ELECTION, 2, 3)
    (leader,) = [m for m in cluster.leaders if m != 1]
    for n in range(3):
        cluster.propose(leader, b"kept %d" % n)
    cluster.settle(2, 3)
    cluster.heal()
    appends = 0
    cluster.now += 100 * MS
    cluster.do(leader, lambda raft: raft.tick(cluster.now))
    for _ in range(20):
        appends += sum(isinstance(m, Append) and m.to == 1 for m in cluster.mail)
        cluster.deliver()
        for member in cluster.nodes:
            cluster.sync(member)
    cluster.pass_time(300 * MS)
    assert cluster.log(1) == cluster.log(leader)
    assert appends <= 6, "one probe a term, not one an entry"


def test_large_entries_are_sent_in_several_messages() -> None:
    cluster = Cluster([1, 2], settings=Settings(max_message_bytes=100))
    cluster.elect(1)
    cluster.settle()
    for _ in range(4):
        cluster.nodes[1].propose(b"x" * 60)
    cluster.turn(1)
    sent = [m for m in cluster.mail if isinstance(m, Append)]
    assert [len(m.entries) for m in sent] == [1, 1, 1, 1]
    cluster.settle()
    assert cluster.nodes[2].log.last == cluster.nodes[1].log.last


def test_a_window_of_bytes_holds_back_what_is_too_much() -> None:
    cluster = Cluster([1, 2], settings=Settings(max_message_bytes=100, max_inflight_bytes=120))
    cluster.elect(1)
    cluster.settle()
    for _ in range(6):
        cluster.nodes[1].propose(b"x" * 60)
    cluster.turn(1)
    assert sum(isinstance(m, Append) for m in cluster.mail) == 2
    cluster.settle()
    assert cluster.nodes[2].log.last == cluster.nodes[1].log.last


def test_a_leader_hands_over() -> None:
    """Thesis section 3.10: no proposals meanwhile; the successor first gets what it lacks."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.propose(1, b"x")
    assert cluster.do(1, lambda r: r.transfer(2)) is True
    assert raft.propose(b"refused") is None
    cluster.settle()
    assert cluster.leaders == [2]
    assert cluster.do(2, lambda r: r.transfer()) is True
    cluster.settle()
    assert cluster.leaders != [2]


def test_a_handing_over_that_fails_ends_after_an_election_timeout() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.isolate(2)
    cluster.propose(1, b"x")
    cluster.do(1, lambda r: r.transfer(2))
    assert raft.transferring
    cluster.pass_time(ELECTION + 50 * MS, 1, 3)
    assert not raft.transferring
    assert raft.propose(b"y") is not None


@pytest.mark.parametrize("target", [1, 9])
def test_leadership_goes_to_another_voter_only(target: int) -> None:
    cluster = Cluster([1, 2, 3], learners=[4])
    raft = cluster.elect(1)
    assert raft.transfer(target) is False
    assert raft.transfer(4) is False
    assert cluster.nodes[2].transfer(3) is False


def test_a_member_of_the_past_is_told_of_the_present() -> None:
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.isolate(1)
    cluster.pass_time(3 * ELECTION, 2, 3)
    (leader,) = [m for m in cluster.leaders if m != 1]
    cluster.heal()
    cluster.nodes[leader].step(Heartbeat(leader, 1, 2, 0, 1))
    cluster.turn(leader)
    cluster.settle()
    assert cluster.leaders == [leader]


def test_reads_are_lost_with_leadership() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.isolate(1)
    cluster.read(1, 1)
    raft.read(2)
    raft.step_down()
    cluster.turn(1)
    assert cluster.reads_lost == [2, 1]
    assert raft.read(3) is False


def test_a_member_without_room_keeps_what_it_has_and_follows_the_commit() -> None:
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.nodes[3].full = True
    index = cluster.propose(1, b"x")
    cluster.settle()
    assert cluster.nodes[1].commit == index
    assert cluster.nodes[3].log.last < index
    cluster.nodes[3].full = False
    cluster.pass_time(300 * MS)
    assert cluster.nodes[3].log.last == index


def test_a_leader_without_room_takes_no_proposals() -> None:
    cluster = Cluster([1])
    raft = cluster.elect(1)
    raft.full = True
    assert raft.propose(b"x") is None


def test_an_append_below_what_is_compacted_is_known() -> None:
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    for n in range(4):
        cluster.propose(1, b"%d" % n)
    cluster.settle()
    raft = cluster.nodes[2]
    raft.compact(4)
    cluster.do(2, lambda r: r.step(Append(2, 1, r.term, 2, 1, [Entry(3, 2, b"0")], 2)))
    cluster.sync(2)
    assert [m.index for m in cluster.mail if isinstance(m, AppendReply)] == [raft.commit]


def test_what_cannot_be_is_refused() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    with pytest.raises(InvariantViolation, match="beyond commit"):
        raft.compact(99)
    with pytest.raises(InvariantViolation, match="was the last one given"):
        raft.appended(99)
    with pytest.raises(InvariantViolation, match="behind commit"):
        raft.restored(1, 1, ConfState((1,)), 1, 2)
    with pytest.raises(InvariantViolation, match="has entries its leader lacks"):
        raft.step(AppendReply(1, 2, raft.term, True, 99))
    with pytest.raises(InvariantViolation, match="truncating at"):
        cluster.nodes[2].step(Append(2, 1, 9, 1, 1, [Entry(2, 9, b"other")], 1))
    with pytest.raises(InvariantViolation, match="is not 0"):
        cluster.start(0) if cluster.disks.setdefault(0, cluster.disks[1]) else None


def test_messages_say_what_they_are() -> None:
    text = repr(Append(2, 1, 3, 4, 2, [Entry(5, 3, b"x", ConfState((1,)))], 4))
    assert text == "Append(1->2 term=3 commit=4, entries=[Entry(5@3, 1B, conf)], prev_index=4, prev_term=2)"


def test_a_log_knows_what_it_forgot() -> None:
    log = Log(4, 2, [Entry(5, 2, b"abc"), Entry(6, 3, b"de")])
    assert (log.first, log.last, log.last_term, log.bytes) == (5, 6, 3, 5)
    log.compact(3)
    assert log.first == 5
    assert log.newest_at_most(9, 1) == (4, 2)
    log.truncate(6)
    assert (log.last, log.bytes) == (5, 3)
    for wrong in (lambda: log.truncate(4), lambda: log.get(9), lambda: log.slice(2, 3, 99), lambda: log.since(1)):
        with pytest.raises(InvariantViolation):
            wrong()
    with pytest.raises(InvariantViolation, match="a gap in the log"):
        log.append([Entry(9, 3, b"")])
    with pytest.raises(InvariantViolation, match="term falls"):
        log.append([Entry(6, 1, b"")])
    with pytest.raises(AssertionError, match="cannot compact"):
        log.compact(99)
