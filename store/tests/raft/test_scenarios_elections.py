"""Scenarios: elections. Each is something that went wrong in the field; the source is in its docstring."""

from __future__ import annotations

import pytest
from holdfast.raft.core import Raft
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.messages import Heartbeat, PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply
from holdfast.raft.types import HardState, Role, Settings

from .cluster import ELECTION, MS, SECOND, Cluster, kind


def test_scenario_04_a_promoted_learner_votes_before_it_knows_of_its_promotion() -> None:
    """etcd PR 10998 (campaign_learner_must_vote): a member that has not heard that it votes has to vote, or there may
    be no quorum."""
    cluster = Cluster([1, 2], learners=[3])
    cluster.elect(1)
    cluster.cut |= {(1, 3)}
    cluster.change(1, [1, 2, 3])
    cluster.settle()
    assert 3 not in cluster.nodes[3].conf.voters
    # The joint configuration is committed by the old half and 2 of the new; now the leader is gone.
    assert cluster.nodes[2].conf.voters == (1, 2, 3)
    cluster.crash(1)
    cluster.pass_time(2 * ELECTION)
    assert cluster.leaders == [2]
    assert cluster.nodes[3].conf.voters == (1, 2, 3)


def test_scenario_13_a_member_whose_term_is_behind_catches_up_by_a_refused_pre_vote() -> None:
    """etcd issues 8243, 8501; openraft 1796: with pre-vote, a member of a lower term and a complete log must not wait
    for ever for votes of members that are ahead of it in term."""
    cluster = Cluster([1, 2, 3])
    # 2 and 3 have been in later terms without anything being written there.
    for member in (2, 3):
        cluster.nodes[member].step(Vote(member, 9, 7, 0, 0, True))
        cluster.turn(member)
        cluster.sync(member)
    cluster.mail.clear()
    cluster.do(1, lambda raft: raft.campaign())
    cluster.settle()
    assert cluster.nodes[1].term == 7
    cluster.elect(1)
    assert cluster.nodes[1].term == 8


def test_scenario_14_a_pre_vote_is_never_counted_as_a_vote() -> None:
    """canonical/raft 196, cockroach 123297: a late answer to a pre-vote, whose term is that of the election, arrives at
    a candidate."""
    cluster = Cluster([1, 2, 3, 4, 5])
    cluster.do(1, lambda raft: raft.campaign())
    cluster.deliver(kind(PreVote))
    for member in (2, 3, 4, 5):
        cluster.sync(member)
    late = cluster.drop(lambda m: isinstance(m, PreVoteReply) and m.frm in (4, 5))
    cluster.deliver(kind(PreVoteReply))
    cluster.sync(1)
    raft = cluster.nodes[1]
    assert raft.role is Role.CANDIDATE
    for reply in late:
        assert reply.term == raft.term
        raft.step(reply)
    assert raft.role is Role.CANDIDATE


def test_scenario_15_a_vote_is_kept_when_stepping_down_within_a_term() -> None:
    """CCF pre_vote_double_leader, redpanda 19: two leaders in one term, because the vote was cleared with the role."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.nodes[3]
    raft.step(Vote(3, 1, 2, 1, 1, False))
    cluster.turn(3)
    assert raft.vote == 1
    raft.campaign()  # pre-candidate in the same term
    assert raft.role is Role.PRE_CANDIDATE
    raft.step(PreVoteReply(3, 1, 2, False))
    raft.step(PreVoteReply(3, 2, 2, False))
    assert cluster.nodes[3].role is Role.FOLLOWER
    assert (raft.term, raft.vote) == (2, 1)
    cluster.mail.clear()
    cluster.do(3, lambda r: r.step(Vote(3, 2, 2, 1, 1, False)))
    cluster.sync(3)
    assert [m.granted for m in cluster.drop(kind(VoteReply)) if m.to == 2 and isinstance(m, VoteReply)] == [False]


def test_scenario_16_a_partial_partition_causes_no_endless_elections() -> None:
    """Cloudflare 2020-11-02: A and C hear B, not each other. With pre-vote and check-quorum the one that cannot hear
    the leader does not depose it."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    term = cluster.nodes[1].term
    cluster.cut |= {(1, 3), (3, 1)}
    cluster.pass_time(20 * ELECTION)
    assert cluster.leaders == [1]
    assert cluster.nodes[1].term == term
    cluster.propose(1, b"x")
    cluster.settle()
    assert cluster.nodes[2].commit == cluster.nodes[1].log.last


def test_scenario_17_a_leader_that_sends_and_does_not_hear_steps_down() -> None:
    """openraft t14_one_way_isolation: its heartbeats keep the others from an election, and it commits nothing."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.cut |= {(2, 1), (3, 1)}
    cluster.pass_time(4 * ELECTION)
    assert cluster.leaders != [1]
    assert cluster.leaders


def test_scenario_17_a_removed_member_that_keeps_talking_deposes_nobody() -> None:
    """etcd checkquorum.txt; thesis section 4.2.3: it was never told that it was removed, and stands for election."""
    cluster = Cluster([1, 2, 3, 4])
    cluster.elect(1)
    cluster.change(1, [1, 2, 3])
    cluster.settle()
    assert cluster.nodes[1].conf.voters == (1, 2, 3)
    term = cluster.nodes[1].term
    cluster.pass_time(20 * ELECTION)
    assert cluster.leaders == [1]
    assert cluster.nodes[1].term == term


def test_scenario_18_term_and_vote_are_one_record() -> None:
    """PySyncObj 84, 202; hashicorp/raft 661: a vote written apart from its term is a vote lost."""
    cluster = Cluster([1, 2, 3])
    cluster.do(2, lambda raft: raft.step(Vote(2, 1, 5, 1, 1, False)))
    assert cluster.mail == []  # nothing is said before it is written
    (write,) = cluster.writes[2]
    assert write.hard_state == HardState(5, 1, 1)
    cluster.sync(2)
    assert [m.granted for m in cluster.mail if isinstance(m, VoteReply)] == [True]
    cluster.crash(2)
    raft = cluster.start(2)
    assert (raft.term, raft.vote) == (5, 1)
    cluster.do(2, lambda r: r.step(Vote(2, 3, 5, 1, 1, False)))
    cluster.sync(2)
    assert [m.granted for m in cluster.mail if isinstance(m, VoteReply) and m.to == 3] == [False]


def test_scenario_19_a_restart_of_the_whole_cluster_keeps_terms_and_what_was_committed() -> None:
    """PySyncObj 202: terms began anew, and committed entries were overwritten."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.propose(1, b"committed")
    cluster.settle()
    term = cluster.nodes[1].term
    for member in (1, 2, 3):
        cluster.crash(member)
    for member in (1, 2, 3):
        cluster.start(member)
    cluster.elect(3)
    assert cluster.nodes[3].term == term + 1
    assert [data for _, data in cluster.log(3)] == [b"", b"committed", b""]


def test_scenario_36_a_member_elected_by_two_votes_of_one_term_is_impossible() -> None:
    """etcd-io/raft doc.go ("only once"), Jepsen TigerBeetle 0.16.11: an id that came back with an empty disk could vote
    again. Here the second vote is refused while the disk is there; an empty disk is another id (see bootstrap)."""
    cluster = Cluster([1, 2, 3])
    for candidate in (1, 3):
        cluster.do(2, lambda raft, c=candidate: raft.step(Vote(2, c, 2, 1, 1, False)))  # type: ignore[misc]
        cluster.sync(2)
    granted = [m.to for m in cluster.mail if isinstance(m, VoteReply) and m.granted]
    assert granted == [1]


# ---- what has no number ----------------------------------------------------------------------------------------


def test_a_leader_steps_down_without_a_quorum() -> None:
    """Thesis section 6.2."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.isolate(1)
    cluster.pass_time(2 * ELECTION, 1)
    assert cluster.nodes[1].role in (Role.FOLLOWER, Role.PRE_CANDIDATE)


def test_a_follower_that_loses_the_connection_to_its_leader_asks_early() -> None:
    """The hint: far below the election timeout, the members one after the other."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.crash(1)
    for member in (2, 3):
        cluster.do(member, lambda raft: raft.suspect(1))
    cluster.pass_time(20 * MS)
    assert cluster.leaders == [2]


def test_the_hint_is_no_proof() -> None:
    """A leader whose connection to one member broke goes on leading: the others still hear it."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    term = cluster.nodes[1].term
    cluster.do(3, lambda raft: raft.suspect(1))
    cluster.pass_time(ELECTION)
    assert cluster.leaders == [1]
    assert cluster.nodes[1].term == term


def test_the_hint_counts_only_for_the_leader() -> None:
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    before = cluster.nodes[3].deadline
    cluster.do(3, lambda raft: raft.suspect(2))
    assert cluster.nodes[3].deadline == before


def test_after_a_hint_the_preferred_member_asks_first() -> None:
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.crash(1)
    for member in (2, 3):
        cluster.do(member, lambda raft: raft.prefer({3: 1}))
        cluster.do(member, lambda raft: raft.suspect(1))
    cluster.pass_time(20 * MS)
    assert cluster.leaders == [3]


def test_who_is_not_preferred_waits_longer() -> None:
    cluster = Cluster([1, 2, 3])
    for raft in cluster.nodes.values():
        raft.prefer({2: 5, 3: 1})
    cluster.elect(3)
    cluster.pass_time(ELECTION // 2)  # timers are drawn anew with the preferences
    cluster.crash(3)
    cluster.pass_time(3 * ELECTION)
    assert cluster.leaders == [2]


def test_a_split_vote_is_tried_again() -> None:
    cluster = Cluster([1, 2, 3, 4])
    for member in (1, 2):
        cluster.do(member, lambda raft: raft.step(TimeoutNow(raft.id, 9, raft.term)))
        cluster.sync(member)
    # 3 votes for 1, 4 for 2.
    cluster.deliver(lambda m: isinstance(m, Vote) and (m.frm, m.to) in ((1, 3), (2, 4)))
    cluster.settle()
    assert cluster.leaders == []
    assert {cluster.nodes[m].term for m in (1, 2, 3, 4)} == {2}
    cluster.elect(1)


def test_a_message_for_somebody_else_is_refused() -> None:
    cluster = Cluster([1, 2, 3])
    with pytest.raises(InvariantViolation, match="reached 1"):
        cluster.nodes[1].step(Heartbeat(2, 3, 1, 0, 1))


def test_time_does_not_go_back() -> None:
    cluster = Cluster([1])
    cluster.nodes[1].tick(5)
    with pytest.raises(InvariantViolation, match="time goes backwards"):
        cluster.nodes[1].tick(4)


def test_two_leaders_in_one_term_stop_the_member() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    with pytest.raises(InvariantViolation, match="two leaders"):
        raft.step(Heartbeat(1, 2, raft.term, 0, 1))


def test_a_learner_does_not_stand_for_election() -> None:
    cluster = Cluster([1, 2], learners=[3])
    cluster.do(3, lambda raft: raft.campaign())
    cluster.do(3, lambda raft: raft.step(TimeoutNow(3, 1, 1)))
    assert cluster.mail == []


def test_a_member_without_room_stands_back() -> None:
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.nodes[2].full = True
    cluster.pass_time(ELECTION // 2)
    cluster.crash(1)
    cluster.pass_time(2 * ELECTION)
    assert cluster.leaders == [3]


# ---- promises (lease reads) ------------------------------------------------------------------------------------

LEASES = Settings(lease_reads=True)


def test_scenario_12_a_promise_holds_against_a_candidate_of_any_term() -> None:
    """Consul's leader lease; etcd 5451: a voter that has promised gives no vote, not even after another message
    has raised its term."""
    cluster = Cluster([1, 2, 3], settings=LEASES)
    cluster.elect(1)
    raft = cluster.nodes[2]
    raft.step(VoteReply(2, 3, raft.term + 1, False))  # anything of a later term
    assert raft.leader == 0
    cluster.do(2, lambda r: r.step(Vote(2, 3, r.term, 99, 99, False)))
    cluster.sync(2)
    assert [m.granted for m in cluster.drop(kind(VoteReply)) if isinstance(m, VoteReply)] == [False]


def test_scenario_12_a_promise_outlives_a_restart() -> None:
    cluster = Cluster([1, 2, 3], settings=LEASES)
    cluster.now = 5 * SECOND
    raft: Raft = cluster.start(2)
    cluster.do(2, lambda r: r.step(Vote(2, 3, 2, 1, 1, False)))
    assert raft.vote == 0
    cluster.do(2, lambda r: r.tick(cluster.now + ELECTION))
    cluster.do(2, lambda r: r.step(Vote(2, 3, 3, 1, 1, False)))
    assert raft.vote == 3


def test_scenario_12_a_promise_makes_the_hint_wait() -> None:
    cluster = Cluster([1, 2, 3], settings=LEASES)
    cluster.elect(1)
    before = cluster.nodes[2].deadline
    cluster.do(2, lambda raft: raft.suspect(1))
    assert cluster.nodes[2].deadline == before


def test_scenario_12_a_leader_of_leases_hands_over_in_spite_of_promises() -> None:
    cluster = Cluster([1, 2, 3], settings=LEASES)
    cluster.elect(1)
    cluster.pass_time(ELECTION // 2)
    cluster.do(1, lambda raft: raft.transfer(3))
    cluster.settle()
    assert cluster.leaders == [3]
