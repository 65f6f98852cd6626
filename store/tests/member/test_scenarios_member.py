"""Scenarios: proposals, reads, leases, sessions and identity, at the member's core. The source is in each docstring."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
from holdfast.kv.store import Family, MemoryStore, StoreBusy
from holdfast.machine import Machine, applied
from holdfast.member import core as core_module
from holdfast.member.core import MAX_PENDING
from holdfast.member.interface import (
    Appended,
    Campaign,
    Cancel,
    DiskFull,
    Flushed,
    KeepAlive,
    PeerLost,
    PeerMessage,
    Propose,
    Read,
    SnapshotOffered,
    SnapshotSent,
    Transfer,
)
from holdfast.member.messages import Forward, ReadReply, ReadRequest, Rejected, Renew, RenewReply
from holdfast.member.recovery import Replay, fit
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.log import Entry, Log
from holdfast.raft.messages import Append, AppendReply, Heartbeat, HeartbeatReply, TimeoutNow
from holdfast.raft.types import DurableAppend, Settings
from holdfast.status import (
    CONF_MOVED,
    CONF_PENDING,
    LEARNER_NOT_READY,
    LEASE_NOT_FOUND,
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NO_SPACE,
    NOT_ENOUGH_STARTED,
    NOT_LEARNER,
    NOT_VOTER,
    PEER_URL_EXISTS,
    SESSION_ENDED,
    SESSION_FORGOTTEN,
    TIMEOUT,
    TIMEOUT_LEADER_FAILED,
    TOO_MANY_LEARNERS,
    TOO_MANY_REQUESTS,
    RequestError,
)

from .member import LATE, MS, SECOND, Members

Change = raft_pb2.MemberChange


def put(key: bytes, value: bytes = b"", session: int = 0, seq: int = 0, low: int = 0) -> raft_pb2.Command:
    request = rpc_pb2.PutRequest(key=key, value=value)
    return raft_pb2.Command(put=request, session=session, session_seq=seq, session_low=low)


def test_scenario_10_a_question_asked_again_has_another_number() -> None:
    """etcd 20418: an answer to the first request must not confirm reads that came later."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.read(2, 10)
    first = members.drop(lambda m: isinstance(m, ReadRequest))
    members.elect(3)
    members.elect(1)
    members.drop()
    members.pass_time(2 * SECOND)
    assert 10 in members.answers
    members.read(2, 11)
    again = members.drop(lambda m: isinstance(m, ReadRequest))
    assert {m.id for m in first}.isdisjoint({m.id for m in again})  # type: ignore[attr-defined]
    members.step(2, PeerMessage(ReadReply(2, 1, 1, first[0].id, 1)))  # type: ignore[attr-defined]
    assert 11 not in members.answers


def test_scenario_10_an_answer_from_before_a_restart_fits_no_question_after_it() -> None:
    """etcd 20418, across a restart; found by the simulator (seed 29422 of the long run): a confirmation that was in
    flight while the asking member restarted arrived after the restart, and made a new read stale."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.read(2, 1)
    members.deliver(lambda m: isinstance(m, ReadRequest))
    members.deliver(lambda m: isinstance(m, Heartbeat))
    members.deliver(lambda m: isinstance(m, HeartbeatReply))
    late = members.drop(lambda m: isinstance(m, ReadReply))
    assert late, "the leader has confirmed the first life's question"
    members.settle()
    members.start(2, members.stores[2])
    members.put(1, 7, b"k", b"written after")
    members.settle()
    assert 7 in members.answers
    members.read(2, 9)
    members.drop(lambda m: isinstance(m, ReadRequest))  # the second life's question has not arrived
    for message in late:
        members.step(2, PeerMessage(message))
    assert 9 not in members.answers


def test_scenario_11_a_restarted_member_answers_reads_when_it_has_applied_what_was_acknowledged() -> None:
    """etcd 3879: reads during the replay of the log were answered from the past."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.put(1, 1, b"a")
    members.settle()
    members.cores.pop(2)
    members.put(1, 2, b"b")
    members.settle()
    store = MemoryStore()
    members.genesis.write(store)
    core = members.start(2, store)  # with its log, and the state of the founding
    assert core.machine.space.revision == 1
    members.read(2, 9)
    assert 9 not in members.answers
    members.pass_time(2 * SECOND)
    assert members.answers[9].revision == 3


def test_scenario_25_rows_and_applied_index_are_one_batch() -> None:
    """etcd 13766, 14685, 17780: a crash between the two applied an entry twice, or left it out."""
    members = Members(1)
    members.elect(1)
    store = members.stores[1]
    batches: list[list[tuple[Family, bytes, bytes | None]]] = []
    original = store.apply
    store.apply = lambda batch: (batches.append(batch), original(batch))[1]  # type: ignore[method-assign]
    members.put(1, 1, b"k")
    (batch,) = [b for b in batches if any(key == b"k" for _, key, _ in b)]
    assert (Family.META, b"applied") in [(family, key) for family, key, _ in batch]
    assert applied(store)[0] == members.cores[1].machine.applied_index


def test_scenario_25_an_entry_that_was_applied_before_the_crash_is_not_applied_again() -> None:
    members = Members(1)
    members.elect(1)
    members.put(1, 1, b"k")
    core = members.start(1, members.stores[1].snapshot())
    members.elect(1)
    assert core.machine.space.revision == 2


def test_scenario_32_an_ex_leader_revokes_no_lease() -> None:
    """etcd 12528, 15247: a leader that was stuck proposed, when it came back, to revoke what others had renewed."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=2)
    members.settle()
    members.isolate(1)
    members.step(2, PeerMessage(TimeoutNow(2, 1, members.cores[2].term)))
    members.settle()
    assert members.cores[2].is_leader
    # 1 sleeps while the lease is renewed at 2, beyond the time that 1 knows of.
    for _ in range(4):
        members.now += SECOND
        for member in (2, 3):
            members.step(member)
            members.settle()
        members.keep_alive(2, 100 + members.now, 7)
        members.settle()
    members.cut.clear()
    members.step(1)
    members.settle()
    members.pass_time(SECOND)
    assert 7 in members.cores[2].machine.leases
    assert not members.cores[1].is_leader


def test_scenario_32_what_an_ex_leader_wanted_to_revoke_is_not_asked_of_its_successor() -> None:
    """Found by the simulator: the revocation stayed in the ex-leader's list of proposals and was proposed again."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=2)
    members.settle()
    members.pass_time(1900 * MS)
    members.isolate(1)
    members.now += 200 * MS
    last = members.cores[1].raft.log.last
    members.step(1)
    assert members.cores[1].raft.log.last == last + 1  # the lease has expired by 1's clock; its messages are lost
    members.step(2, PeerMessage(TimeoutNow(2, 1, members.cores[2].term)))
    members.settle()
    members.keep_alive(2, 5, 7)
    members.settle()
    assert members.answers[5].ttl == 2
    members.cut.clear()
    members.pass_time(SECOND)
    assert not members.cores[1].is_leader
    assert 7 in members.cores[2].machine.leases


def test_scenario_32_a_new_leader_gives_a_lease_its_whole_time_again() -> None:
    """etcd 13294, 17132: a change of leader extends leases; it never ends them early."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=3)
    members.settle()
    members.pass_time(2 * SECOND)
    members.elect(2)
    members.pass_time(2 * SECOND)
    assert 7 in members.cores[2].machine.leases
    members.keep_alive(2, 5, 7, query=True)
    members.settle()
    assert members.answers[5].ttl == 2  # of 3 and an election timeout, which 2 s are gone of
    members.pass_time(3 * SECOND)
    assert 7 not in members.cores[2].machine.leases


def test_scenario_32_a_checkpoint_that_was_taken_back_is_so_for_a_leader_who_applies_it_late() -> None:
    """Found by the simulator: a renewal was acknowledged, its leader died, and the next one had the entry that takes
    the checkpoint back in its log, but not applied when it began to lead: it ended the lease early."""
    members = Members(1, 2, 3, settings=Settings(lease_checkpoint_ns=2 * SECOND))
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=60)
    members.settle()
    members.pass_time(3 * SECOND)
    assert members.cores[2].machine.remaining == {7: 58}
    members.pass_time(30 * SECOND)
    members.keep_alive(1, 2, 7)
    while 2 not in members.answers:
        # The others make everything durable and do not get the commit index.
        members.deliver(lambda m: m.to == 1 or not isinstance(m, Append) or bool(m.entries))
        members.drop(lambda m: m.to != 1 and isinstance(m, Append) and not m.entries)
    assert members.answers[2].ttl == 60
    members.isolate(1)
    assert members.cores[2].machine.remaining
    next_leader = members.elect(2)
    assert not next_leader.machine.remaining
    left = next_leader.lessor.clock.remaining(7, members.now)
    assert left is not None
    assert left >= 60


def test_two_renewals_of_one_lease_wait_both_for_its_checkpoint_to_be_taken_back() -> None:
    """They came in one turn: the first one proposed it, and the second was acknowledged before that was committed."""
    members = Members(1, 2, 3, settings=Settings(lease_checkpoint_ns=2 * SECOND))
    leader = members.elect(1)
    members.grant(1, 1, lease=7, ttl=60)
    members.settle()
    members.pass_time(2 * SECOND - 50 * MS)
    members.now += 50 * MS
    members.step(1)  # proposes a checkpoint, which reaches no other member yet
    assert leader.raft.log.last > leader.machine.applied_index
    members.keep_alive(2, 2, 7)
    members.keep_alive(3, 3, 7)
    members.step(1, *[PeerMessage(renewal) for renewal in members.drop(lambda m: isinstance(m, Renew))])
    while members.deliver(lambda m: not isinstance(m, Append)):
        pass
    assert leader.raft.log.last == leader.machine.applied_index + 3  # the checkpoint, and once for each renewal
    assert members.answers.keys() == {1}
    members.settle()
    assert [members.answers[id].ttl for id in (2, 3)] == [60, 60]


def test_scenario_33_a_member_whose_state_differs_stops() -> None:
    """etcd 14571: applying depended on something of the node, and the members drifted apart unseen."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.put(1, 1, b"k")
    members.settle()
    core = members.cores[2]
    index = core.machine.applied_index
    with pytest.raises(InvariantViolation, match="differs from its leader's"):
        core.step(members.now, [PeerMessage(Heartbeat(2, 1, core.term, index, 99, index, core.machine.digest ^ 1))])


def test_scenario_34_a_command_that_is_asked_again_is_done_once() -> None:
    """Jepsen jetcd 0.8.2: a client library sent a write again whose answer was lost."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=60)
    members.settle()
    members.ask(1, 2, put(b"k", b"first", session=7, seq=1, low=1))
    members.settle()
    first = members.answers[2]
    # The answer is lost; it asks another member, and in the meantime another client has written.
    members.put(3, 3, b"k", b"other")
    members.settle()
    members.ask(2, 4, put(b"k", b"first", session=7, seq=1, low=1))
    members.settle()
    again = members.answers[4]
    assert (again.revision, again.response) == (first.revision, first.response)
    assert members.cores[1].machine.space.revision == first.revision + 1


def test_scenario_34_the_first_answer_survives_a_snapshot() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=60)
    members.settle()
    members.isolate(3)
    request = rpc_pb2.DeleteRangeRequest(key=b"none")
    refused = raft_pb2.Command(put=rpc_pb2.PutRequest(key=b"k", lease=99), session=7, session_seq=2, session_low=1)
    members.ask(1, 2, raft_pb2.Command(delete_range=request, session=7, session_seq=1, session_low=1))
    members.ask(1, 3, refused)
    members.settle()
    leader = members.cores[1]
    copy = members.stores[1].snapshot()
    members.cut.clear()
    members.step(
        3,
        SnapshotOffered(leader.machine.applied_index, leader.machine.applied_term, 1, leader.term, lambda: copy),
    )
    members.elect(3)
    members.ask(3, 4, raft_pb2.Command(delete_range=request, session=7, session_seq=1, session_low=1))
    members.ask(3, 5, refused)
    members.settle()
    assert members.answers[4].response == members.answers[2].response
    assert members.error(5) == members.error(3) != ""


def test_scenario_34_a_session_that_has_ended_does_nothing() -> None:
    members = Members(1)
    members.elect(1)
    members.ask(1, 1, put(b"k", session=7, seq=1))
    assert members.answers[1].error is SESSION_ENDED
    members.grant(1, 2, lease=7, ttl=60)
    members.ask(1, 3, put(b"k", session=7, seq=5, low=5))
    members.ask(1, 4, put(b"k", session=7, seq=4, low=4))
    assert members.answers[4].error is SESSION_FORGOTTEN
    members.ask(1, 5, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=7)))
    assert not any(key.startswith(b"answer/") for key, _ in members.stores[1].scan(Family.META, b"", None))


def test_scenario_34_kept_answers_are_bounded() -> None:
    members = Members(1)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=60)
    for n in range(1, 101):
        members.ask(1, 100 + n, put(b"k%d" % n, session=7, seq=n, low=1))
    kept = [key for key, _ in members.stores[1].scan(Family.META, b"answer/", b"answer0")]
    assert len(kept) == 64
    members.ask(1, 500, put(b"k1", session=7, seq=1, low=1))
    assert members.answers[500].error is SESSION_FORGOTTEN
    # What is known of them after a start is the same.
    assert Machine(members.stores[1].snapshot()).clients.find(7, 100) is not None


def test_scenario_35_a_lock_taken_later_has_a_higher_token() -> None:
    """Jepsen etcd 3.4.3: a holder whose lease has expired goes on writing; the resource must be able to refuse it."""
    members = Members(1)
    members.elect(1)
    tokens = []
    for lease in (7, 8):
        members.grant(1, lease, lease=lease, ttl=1)
        members.put(1, 100 + lease, b"/lock", b"", lease=lease)
        tokens.append(members.answers[100 + lease].revision)
        members.pass_time(4 * SECOND)  # the holder sleeps; its lease ends
        assert members.cores[1].machine.space.get(b"/lock") is None
    assert tokens[0] < tokens[1]


def test_scenario_36_an_id_is_never_used_twice() -> None:
    """etcd-io/raft doc.go; Jepsen TigerBeetle 0.16.11: a member that was removed, or that lost its disk, came back
    under its id with another state."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.change(1, 1, Change.REMOVE, 3)
    members.settle()
    assert members.cores[1].machine.removed == {3}
    members.change(1, 2, Change.ADD_LEARNER, 3)
    assert members.answers[2].error is MEMBER_EXISTS
    members.change(1, 3, Change.ADD_LEARNER, 9)
    members.settle()
    for id, volume in ((4, 70), (5, 71)):
        members.ask(1, id, raft_pb2.Command(claim=raft_pb2.Claim(member_id=9, volume_id=volume)))
        members.settle()
    assert members.error(4) == ""
    assert "is taken by the volume 46" in members.error(5)


# ---- membership ------------------------------------------------------------------------------------------------


def test_members_are_changed_through_a_joint_configuration_and_answered_at_its_end() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.change(2, 1, Change.REMOVE, 3)
    seen = []
    while members.deliver():
        seen.append((leader.raft.conf.joint, 3 in leader.machine.members, 1 in members.answers))
    assert (True, True, False) in seen
    assert seen[-1] == (False, False, True)
    assert members.error(1) == ""


def test_several_changes_in_one_step() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.change(1, 1, Change.REMOVE, 3, (Change.ADD_LEARNER, 8), (Change.DEMOTE, 2))
    members.settle()
    assert leader.raft.conf.voters == (1,)
    assert set(leader.raft.conf.learners) == {2, 8}
    assert set(leader.machine.members) == {1, 2, 8}


def test_changes_that_make_no_sense_are_refused() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.settle()
    refused = {
        10: (MEMBER_NOT_FOUND, (Change.REMOVE, 9)),
        11: (NOT_LEARNER, (Change.PROMOTE, 2)),
        12: (NOT_VOTER, (Change.DEMOTE, 9)),
        13: (MEMBER_EXISTS, (Change.ADD_VOTER, 2)),
    }
    for id, (error, (kind, target)) in refused.items():
        if error is NOT_VOTER:
            members.change(1, 5, Change.ADD_LEARNER, 9)
            members.settle()
        members.change(1, id, kind, target)
        assert members.answers[id].error is error
    members.change(1, 14, Change.PROMOTE, 9)
    assert members.answers[14].error is LEARNER_NOT_READY
    members.change(1, 15, Change.ADD_LEARNER, 10, (Change.ADD_LEARNER, 11))
    assert members.answers[15].error is TOO_MANY_LEARNERS
    members.change(1, 16, Change.ADD_LEARNER, 10, expected=1)
    assert members.answers[16].error is CONF_MOVED
    clash = raft_pb2.MemberChange(kind=Change.ADD_LEARNER)
    clash.member.id, clash.member.peer_urls[:] = 10, ["http://m2:2380"]
    members.ask(1, 17, raft_pb2.Command(member=clash))
    assert members.answers[17].error is PEER_URL_EXISTS
    members.change(1, 18, Change.REMOVE, 1, (Change.REMOVE, 2), (Change.REMOVE, 3))
    assert members.answers[18].error is NOT_ENOUGH_STARTED
    members.change(1, 19, Change.REMOVE, 2)
    members.change(1, 20, Change.REMOVE, 3)
    assert members.answers[20].error is CONF_PENDING
    members.settle()
    assert leader.raft.conf.voters == (1, 3)


def test_a_change_that_would_lose_the_majority_is_refused() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.isolate(3)
    members.pass_time(2 * SECOND)
    members.change(1, 1, Change.REMOVE, 2)
    members.settle()
    assert members.answers[1].error is NOT_ENOUGH_STARTED
    members.change(1, 2, Change.REMOVE, 3)
    members.settle()
    assert members.error(2) == ""


def test_a_change_refused_by_the_leader_is_told_to_who_asked() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.change(2, 1, Change.REMOVE, 99)
    members.settle()
    assert members.answers[1].error is MEMBER_NOT_FOUND
    # An answer to an earlier life, or with a text that this program does not know.
    members.put(2, 2, b"k")
    incarnation = members.cores[2]._incarnation
    members.step(2, PeerMessage(Rejected(2, 1, 1, incarnation - 1, 2, "?")))
    assert 2 not in members.answers
    members.step(2, PeerMessage(Rejected(2, 1, 1, incarnation, 2, "?")))
    assert "unhealthy" in members.error(2)


def test_a_start_that_meets_what_a_later_one_proposed_counts_on() -> None:
    """Its count of starts is from an older copy, so all its proposals would be taken for old ones."""
    members = Members(1, 2, 3)
    members.elect(1)
    core = members.cores[2]
    later = raft_pb2.Command(format=1, origin=2, incarnation=core._incarnation + 1, seq=1)
    later.put.key = b"later"
    members.step(1, PeerMessage(Forward(1, 2, core.term, [later.SerializeToString()])))
    members.settle()
    members.put(2, 1, b"mine")
    members.settle()
    assert members.error(1) == ""
    assert all(core.machine.space.get(b"mine") for core in members.cores.values())


def test_a_change_that_comes_again_is_not_made_again() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.change(2, 1, Change.ADD_LEARNER, 9)
    (forward,) = [m for m in members.mail if isinstance(m, Forward)]
    members.step(1, PeerMessage(forward), PeerMessage(forward))
    members.settle()
    members.step(1, PeerMessage(forward))
    members.settle()
    assert leader.raft.conf.learners == (9,)
    assert members.error(1) == ""


def test_attributes_and_addresses() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    attributes = raft_pb2.MemberAttributes(id=2, name="renamed", client_urls=["http://c:2379"], priority=4)
    members.ask(1, 1, raft_pb2.Command(attributes=attributes))
    members.change(1, 2, Change.UPDATE, 3)
    members.ask(1, 3, raft_pb2.Command(attributes=raft_pb2.MemberAttributes(id=77)))
    members.ask(1, 4, raft_pb2.Command(claim=raft_pb2.Claim(member_id=77)))
    members.ask(1, 5, raft_pb2.Command(cluster_version=raft_pb2.ClusterVersion(version="0.2.0")))
    members.settle()
    assert (leader.machine.members[2].name, leader.machine.members[2].priority) == ("renamed", 4)
    assert members.answers[3].error is MEMBER_NOT_FOUND
    assert members.answers[4].error is MEMBER_NOT_FOUND
    assert leader.machine.cluster_version == "0.2.0"


def test_a_preferred_voter_gets_the_leadership_once_it_has_everything() -> None:
    members = Members(1, 2, 3, priorities={3: 5})
    members.elect(1)
    members.pass_time(3 * SECOND)
    assert members.cores[3].is_leader


# ---- proposals -------------------------------------------------------------------------------------------------


def test_a_write_waits_through_an_election_and_is_done_once() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.put(2, 1, b"k")
    members.drop(lambda m: isinstance(m, Append))  # only 1 has it in its log
    members.deliver(lambda m: isinstance(m, Forward))
    members.drop(lambda m: isinstance(m, Append))
    members.cores.pop(1)
    members.step(3, PeerMessage(TimeoutNow(3, 1, members.cores[3].term)))
    members.settle()
    assert members.cores[3].is_leader
    members.pass_time(SECOND)
    assert members.error(1) == ""
    assert members.cores[3].machine.space.revision == 2


def test_what_nobody_answers_is_given_up_at_its_deadline() -> None:
    members = Members(1, 2, 3)
    members.step(1, Propose(1, put(b"k"), members.now + SECOND))
    members.read(1, 2, members.now + SECOND)
    members.keep_alive(1, 3, 7, deadline=members.now + SECOND)
    members.cut = {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}
    members.pass_time(SECOND)
    assert [members.answers[id].error for id in (1, 2, 3)] == [TIMEOUT] * 3
    assert members.cores[1].deadline_ns > members.now


def test_nobody_waits_for_what_was_cancelled() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    core = members.cores[2]
    members.put(2, 1, b"k")
    members.step(2, Cancel(1))
    core.step(members.now, [Cancel(99)])
    members.settle()
    assert 1 not in members.answers
    members.step(2, Read(5, LATE), KeepAlive(6, 7, False, LATE), Cancel(5), Cancel(6))
    members.settle()
    assert not {5, 6} & set(members.answers)


def test_too_many_proposals_are_refused() -> None:
    members = Members(1, 2, 3)
    core = members.cores[1]
    out = core.step(0, [Propose(n, put(b"k"), LATE) for n in range(1, MAX_PENDING + 2)])
    assert [a.error for a in out.answers] == [TOO_MANY_REQUESTS]


def test_a_member_without_room_refuses_writes_and_serves_reads() -> None:
    members = Members(1)
    members.elect(1)
    members.step(1, DiskFull(True))
    members.put(1, 1, b"k")
    members.read(1, 2)
    assert members.answers[1].error is NO_SPACE
    assert members.answers[2].error is None
    members.step(1, DiskFull(False))
    members.put(1, 3, b"k")
    assert members.error(3) == ""


def test_a_leader_without_room_hands_over_and_refuses_what_comes_meanwhile() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.step(1, DiskFull(True))
    members.settle()
    assert not members.cores[1].is_leader
    members.step(1, DiskFull(False))
    leader = next(core for core in members.cores.values() if core.is_leader)
    for core in members.cores.values():
        core.raft.full = True
    other = next(m for m in (1, 2, 3) if m != leader.id)
    members.put(other, 5, b"k")
    members.settle()
    assert members.answers[5].error is NO_SPACE


def test_a_new_leader_answers_reads_while_all_disks_are_full() -> None:
    """Its first entry was treated as lost, and without it a leader does not know what is committed."""
    members = Members(1, 2, 3)
    leader = members.elect(1)
    for member in (1, 2, 3):
        members.step(member, DiskFull(True))
    members.settle()
    for successor in (2, 3):
        members.elect(successor)
        members.settle()
        for member in (1, 2, 3):
            members.read(member, 10 * successor + member)
        members.pass_time(200 * MS)
        for member in (1, 2, 3):
            assert members.answers[10 * successor + member].error is None
    members.put(3, 99, b"k")
    assert members.answers[99].error is NO_SPACE
    assert leader.raft.full


def test_a_member_without_room_takes_few_entries_of_a_new_leader() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.step(3, DiskFull(True))
    for n in range(20):
        members.put(1, n + 1, b"k", bytes(100_000))
    members.settle()
    last = members.cores[3].raft.log.last
    members.elect(2)
    members.pass_time(500 * MS)
    assert members.cores[3].raft.log.last == last, "what it lacks is too much for a full disk"
    members.step(3, DiskFull(False))
    members.put(2, 50, b"k")
    members.pass_time(500 * MS)
    assert members.cores[3].raft.log.last == members.cores[2].raft.log.last


def test_a_refusal_is_not_believed_if_another_leader_was_asked_before() -> None:
    """The first leader may have the command in its log."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.put(2, 1, b"k")
    members.drop(lambda m: isinstance(m, Forward))
    members.cut |= {(2, 3)}
    members.elect(3)  # sent again, on a link that loses it
    incarnation = members.cores[2]._incarnation
    members.step(2, PeerMessage(Rejected(2, 3, 1, incarnation, 1, NO_SPACE.message)))
    assert 1 not in members.answers


def test_what_was_refused_is_not_done_when_it_comes_again() -> None:
    """Found by the simulator: the network delivered a command twice; refused for want of room, then done."""
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.put(2, 1, b"k")
    (forward,) = members.drop(lambda m: isinstance(m, Forward))
    leader.raft.full = True
    members.step(1, PeerMessage(forward))
    members.settle()
    assert members.answers[1].error is NO_SPACE
    leader.raft.full = False
    members.step(1, PeerMessage(forward))
    members.put(2, 2, b"other")
    members.settle()
    assert members.error(2) == ""
    assert leader.machine.space.get(b"k") is None


def test_leases_that_expire_together_are_revoked_in_batches() -> None:
    members = Members(1)
    core = members.elect(1)
    for n in range(250):
        members.grant(1, n + 1, lease=n + 1, ttl=1)
    members.now += 2 * SECOND
    assert len(core.lessor.clock.expired(members.now, 100, SECOND)) == 100
    members.now += SECOND
    members.step(1)
    assert core.machine.leases == {}


def test_a_lease_that_is_unknown_or_over() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.keep_alive(2, 1, 99)
    members.keep_alive(2, 2, 99, query=True)
    members.settle()
    assert [members.answers[id].ttl for id in (1, 2)] == [0, -1]
    members.keep_alive(1, 3, 99)
    members.settle()
    assert members.answers[3].ttl == 0


def test_a_renewal_waits_until_what_is_committed_is_applied() -> None:
    """Found by the simulator: the end of the lease was committed, not applied, and the renewal was acknowledged."""
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.grant(1, 1, lease=7, ttl=30)
    members.settle()
    members.ask(1, 2, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=7)))
    leader._apply_budget = 0
    while members.mail:
        for message in members.drop():
            out = members.cores[message.to].step(members.now, [PeerMessage(message)])
            members.mail += out.messages
            if out.append is not None:
                again = members.cores[message.to].step(members.now, [Appended(out.append.seq)])
                members.mail += again.messages
    assert leader.raft.commit > leader.machine.applied_index
    out = leader.step(members.now, [KeepAlive(3, 7, False, LATE)])
    replies = [HeartbeatReply(1, m.to, leader.term, m.round) for m in out.messages if isinstance(m, Heartbeat)]
    out = leader.step(members.now, [PeerMessage(r) for r in replies])
    assert out.answers == []
    leader._apply_budget = 100
    out = leader.step(members.now, [])
    assert [a.ttl for a in out.answers if a.id == 3] == [0]


def test_renewals_of_who_does_not_lead_any_more_are_asked_elsewhere() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    leader.lessor.confirmed(0, Renew(1, 2, 1, 5, [7], False))
    leader.raft.step_down()
    assert leader.step(members.now, []).messages == []
    assert not leader.lessor.waiting
    members.step(1, PeerMessage(RenewReply(1, 2, 1, 77, [7], [5])))  # to a request that was never sent


def test_a_membership_change_is_known_as_one_when_it_is_asked_for_again() -> None:
    """By then the command is only bytes; if it were not recognised, its entry would have no configuration."""
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.isolate(2)
    members.step(1, Transfer(2))
    members.change(1, 1, Change.ADD_LEARNER, 9)  # not now: leadership is being handed over
    assert members.cores[1].raft.conf.learners == ()
    members.pass_time(3 * SECOND)
    assert members.error(1) == ""
    assert leader.raft.conf.learners == (9,)


class _Unread:
    """Stands for a message that must not be parsed."""

    @staticmethod
    def FromString(data: bytes) -> raft_pb2.Command:
        raise AssertionError(f"parsed again: {data!r}")


def test_a_put_is_not_parsed_again_whatever_it_contains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are those before the field of a membership change in a command."""
    members = Members(1, 2, 3)
    members.elect(1)
    members.change(1, 1, Change.ADD_LEARNER, 9)
    members.settle()
    command = put(b"k", b"\xb2\x01" * 8)
    monkeypatch.setattr(core_module, "raft_pb2", SimpleNamespace(Command=_Unread))
    members.step(1, Propose(2, command, LATE))
    members.settle()
    assert members.error(2) == ""


# ---- snapshots, the log, the turn ------------------------------------------------------------------------------


def test_a_write_whose_answer_went_into_a_snapshot_is_of_unknown_outcome() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.put(3, 1, b"k")
    members.cut |= {(1, 3)}
    members.settle()
    assert leader.machine.space.revision == 2
    copy = members.stores[1].snapshot()
    members.step(
        3, SnapshotOffered(leader.machine.applied_index, leader.machine.applied_term, 1, leader.term, lambda: copy)
    )
    assert members.answers[1].error is TIMEOUT_LEADER_FAILED
    members.step(3, SnapshotOffered(1, 1, 1, leader.term, lambda: copy))  # older than what is here


def test_a_snapshot_that_is_not_what_it_is_said_to_be_stops_the_member() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    copy = members.stores[1].snapshot()
    with pytest.raises(InvariantViolation, match="said to be of index 99"):
        members.step(3, SnapshotOffered(99, 1, 1, leader.term, lambda: copy))


def flushed(members: Members, member: int, *, keep: int, keep_bytes: int = 1 << 20, upto: int | None = None) -> int:
    """The state is flushed, up to `upto` or to the end. Returns where the log begins then."""
    core = members.cores[member]
    core.keep_entries, core.keep_bytes = keep, keep_bytes
    members.step(member, Flushed(core.machine.applied_index if upto is None else upto))
    return core.raft.log.base_index


def test_the_log_is_kept_for_who_is_slow_within_bounds() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.cut |= {(1, 3)}  # 3 is heard and gets nothing
    for n in range(30):
        members.put(1, n + 1, b"k%d" % n)
        members.settle()
    progress = leader.raft.progress(3)
    assert progress is not None
    progress.heard_at = members.now
    assert flushed(members, 1, keep=10, upto=0) == 1  # nothing of it is flushed
    assert flushed(members, 1, keep=10) <= progress.match
    assert flushed(members, 1, keep=2) == leader.raft.log.last - 8  # four times what is kept is enough
    assert flushed(members, 1, keep=100, keep_bytes=0) > leader.raft.log.last - 8
    members.step(1, SnapshotSent(3, False))


def test_the_log_is_kept_for_a_snapshot_that_is_under_way() -> None:
    """Otherwise, if a snapshot takes longer than the log is kept, the next one follows, for ever."""
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.cut |= {(1, 3), (3, 1)}
    for n in range(30):
        members.put(1, n + 1, b"k%d" % n)
        members.settle()
    progress = leader.raft.progress(3)
    assert progress is not None
    progress.snapshot()
    progress.heard_at = members.now
    assert flushed(members, 1, keep=2) == 1
    assert flushed(members, 1, keep=2, keep_bytes=0) > 1  # but not without a limit
    progress.heard_at = -1 << 40
    assert flushed(members, 1, keep=2) == leader.raft.log.last - 2  # nor for a member that is not there


def test_only_a_step_lets_go_of_the_log() -> None:
    """A driver says what is flushed as an input, and the output says how much of the durable log may go."""
    members = Members(1)
    leader = members.elect(1)
    for n in range(30):
        members.put(1, n + 1, b"k%d" % n)
        members.settle()
    assert leader.flushed_index < leader.machine.applied_index
    leader.keep_entries = 10
    out = members.step(1, Flushed(leader.machine.applied_index))
    assert leader.flushed_index == leader.machine.applied_index
    assert leader.raft.log.base_index == leader.raft.log.last - 10
    assert out.forget == leader.raft.log.base_index
    assert not members.step(1).forget, "it is said once"
    with pytest.raises(AttributeError):
        leader.flushed_index = 0  # type: ignore[misc]


def test_a_single_member_leads_at_once_and_hints_do_nothing() -> None:
    members = Members(1)
    members.step(1, Campaign())
    assert members.cores[1].is_leader
    members.step(1, PeerLost(9), Transfer(0))
    assert members.cores[1].is_leader


def test_a_store_that_is_busy_is_given_the_batch_again() -> None:
    members = Members(1)
    core = members.elect(1)
    store = members.stores[1]
    original, calls = store.apply, []

    def busy(batch: object) -> None:
        calls.append(batch)
        if len(calls) < 3:
            raise StoreBusy("stalled")
        original(batch)  # type: ignore[arg-type]

    store.apply = busy  # type: ignore[method-assign]
    members.put(1, 1, b"k")
    assert core.machine.busy
    members.step(1)
    members.step(1)
    assert not core.machine.busy
    assert applied(store)[0] == core.machine.applied_index


def test_recovery_explains_every_gap_or_stops() -> None:
    later = Log(5, 2, [Entry(6, 2, b"")])
    with pytest.raises(InvariantViolation, match="entries are missing"):
        fit(later, 3, 1)
    assert fit(later, 9, 3)  # the state is ahead: a snapshot was put in use, the log not yet begun anew
    assert (later.base_index, later.base_term) == (9, 3)
    older = Replay([DurableAppend(0, None, 0, (Entry(4, 2, b"a"), Entry(5, 2, b"b")))]).log
    assert not fit(older, 5, 2)
    assert (older.base_index, older.base_term) == (4, 2)
    same = Replay([DurableAppend(0, None, 0, (Entry(4, 2, b"a"),))]).log
    assert not fit(same, 3, 1)
    assert same.base_term == 1
    cut = Replay([DurableAppend(0, None, 0, (), base=(3, 1)), DurableAppend(0, None, 2, ())])
    assert cut.log.last == 3


def test_reads_and_acknowledgements_of_strangers_are_ignored() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.step(1, PeerMessage(AppendReply(1, 9, leader.term, True, 1)))
    members.step(1, PeerMessage(HeartbeatReply(1, 9, leader.term, 1)))
    members.step(1, PeerMessage(ReadReply(1, 2, leader.term, 99, 1)))
    assert leader.is_leader


def test_deadlines_are_the_nearest_of_what_waits() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.grant(1, 1, lease=7, ttl=60)
    members.settle()
    quiet = leader.deadline_ns
    members.step(1, Propose(2, put(b"k"), members.now + 5 * MS))
    assert leader.deadline_ns == members.now + 5 * MS
    members.settle()
    assert leader.deadline_ns == quiet
    members.step(2, Read(3, members.now + 7 * MS), KeepAlive(4, 7, False, members.now + 6 * MS))
    assert members.cores[2].deadline_ns == members.now + 6 * MS
    members.settle()
    # A lease that is about to end wakes its leader, unless it could do nothing about it.
    members.now += 20 * MS
    members.grant(1, 5, lease=8, ttl=1)
    members.settle()
    members.now += 950 * MS
    for member in (2, 3, 1):
        members.step(member)
    members.settle()
    assert leader.lessor.deadline is not None
    members.now = leader.lessor.deadline - MS
    leader.step(members.now, [])
    assert leader.deadline_ns == members.now + MS
    leader.raft.full = True
    assert leader.deadline_ns == leader.raft.deadline > members.now + MS


def test_queries_and_renewals_at_the_leader_itself() -> None:
    members = Members(1)
    members.elect(1)
    members.grant(1, 1, lease=7, ttl=9)
    members.keep_alive(1, 2, 7)
    members.keep_alive(1, 3, 7, query=True)
    assert [members.answers[id].ttl for id in (2, 3)] == [9, 9]


def test_who_is_added_in_the_same_step_cannot_be_changed_in_it() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.change(1, 1, Change.ADD_LEARNER, 9, (Change.PROMOTE, 9))
    assert members.answers[1].error is MEMBER_NOT_FOUND
    members.change(1, 2, Change.ADD_VOTER, 9)
    members.settle()
    assert 9 in members.cores[1].raft.conf.voters


def test_a_handing_over_waits_with_proposals() -> None:
    members = Members(1, 2, 3)
    leader = members.elect(1)
    members.isolate(2)
    members.put(1, 1, b"k")
    members.step(1, Transfer(2))
    assert leader.raft.transferring
    members.put(1, 2, b"later")
    members.settle()
    assert 2 not in members.answers
    members.cut.clear()
    members.pass_time(3 * SECOND)
    assert members.error(2) == ""


def test_a_refusal_keeps_nothing_alive() -> None:
    """Found by a long simulation that ran out of memory: an exception that is made once and raised often collects the
    frames of every time, with all that they hold. So what is kept is no exception, and
    those that were raised are gone."""

    def raised() -> int:
        gc.collect()
        # By type: isinstance asks an object for its class, and lazy ones of libraries then do things.
        return sum(issubclass(type(kept), RequestError) for kept in gc.get_objects())

    before = raised()
    members = Members(1)
    members.elect(1)
    members.put(1, 1, b"k", lease=99)
    members.change(1, 2, Change.REMOVE, 99)
    for id, error in ((1, LEASE_NOT_FOUND), (2, MEMBER_NOT_FOUND)):
        assert members.answers[id].error is error
        assert not isinstance(members.answers[id].error, BaseException)
    assert raised() == before


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        (["http://m2:2380"], "etcdserver: Peer URLs already exists"),
        ([], "etcdserver: given member URLs are invalid"),
        (["m9:2380"], "etcdserver: given member URLs are invalid"),
        (["http://m9:2380/path"], "etcdserver: given member URLs are invalid"),
        (["http://m3:2380", "http://m9:2380"], ""),
    ],
)
def test_a_new_address_of_a_member_is_checked_as_that_of_a_new_member_is(urls: list[str], why: str) -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.pass_time(SECOND)
    change = Change(kind=Change.UPDATE, member=raft_pb2.MemberInfo(id=3, peer_urls=urls))
    members.ask(2, 7, raft_pb2.Command(member=change))
    members.pass_time(SECOND)
    assert members.error(7) == why
    assert list(members.cores[2].machine.members[3].peer_urls) == (["http://m3:2380"] if why else urls)
