"""Scenarios: changes of the membership. The source is in each docstring."""

from __future__ import annotations

import pytest
from holdfast.raft.conf import Configurations
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.log import Entry
from holdfast.raft.messages import Append, TimeoutNow
from holdfast.raft.quorum import ConfState

from .cluster import ELECTION, Cluster


def test_scenario_01_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """Ongaro's 2015 erratum (gist a11f32b70581e20d6bcd), openraft uncommitted_leader_log: two leaders, each with a
    change the other does not know, decide by quorums that do not overlap."""
    cluster = Cluster([1, 2, 3, 4])
    cluster.elect(1)
    cluster.isolate(1)
    changed = cluster.nodes[1].conf.changed([1, 2, 3, 4, 5], [])
    cluster.nodes[1].propose(b"add 5", changed)  # in 1's log only
    cluster.do(2, lambda raft: raft.step(TimeoutNow(2, 1, raft.term)))
    for _ in range(10):
        for member in (2, 3, 4):
            cluster.sync(member)
        cluster.deliver(lambda m: not isinstance(m, Append))
    raft = cluster.nodes[2]
    assert raft.is_leader
    assert not raft.may_change_conf()
    with pytest.raises(InvariantViolation, match="before the last one is committed"):
        raft.propose(b"remove", raft.conf.changed([2, 3, 4], []))
    cluster.settle(2, 3, 4)
    assert raft.may_change_conf()


def test_scenario_02_a_configuration_that_is_cut_off_is_not_in_force_any_more() -> None:
    """hashicorp membership.md, openraft effective-membership: in force from the log on, so truncation reverts it."""
    cluster = Cluster([1, 2, 3])
    cluster.elect(1)
    cluster.isolate(1)
    cluster.change(1, [1, 2, 3, 4])
    assert cluster.nodes[1].conf.joint
    cluster.pass_time(3 * ELECTION, 2, 3)
    cluster.heal()
    cluster.pass_time(ELECTION)
    assert cluster.nodes[1].conf == ConfState((1, 2, 3))
    assert cluster.nodes[1].conf_index == 1


def test_scenario_03_a_member_is_never_voter_and_learner_at_once() -> None:
    """etcd-io/raft tracker.go, joint_learners_next: a demoted voter becomes a learner when the joint state is left."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.change(1, [1, 2], [3])
    assert raft.conf == ConfState((1, 2), (1, 2, 3), (), (3,))
    cluster.settle()
    assert raft.conf == ConfState((1, 2), (), (3,))
    assert cluster.nodes[3].conf == raft.conf
    with pytest.raises(InvariantViolation, match="voter and learner at once"):
        ConfState((1, 2), (1, 2, 3), (3,))


def test_scenario_05_a_removed_voter_that_is_gone_does_not_stop_the_others() -> None:
    """cockroach 42251, 131445; etcd 12359: the removed voter is shut down at once, and the leader dies before the
    others have heard that the change is committed."""
    cluster = Cluster([1, 2, 3, 4])
    cluster.elect(1)
    cluster.change(1, [1, 2, 3])
    # The leave is committed by 1 and 2; 3 has not heard of it.
    cluster.settle(1, 2, 4)
    assert not cluster.nodes[1].conf.joint
    cluster.crash(4)
    cluster.crash(1)
    cluster.pass_time(4 * ELECTION)
    assert cluster.leaders == [2]
    cluster.propose(2, b"goes on")
    cluster.settle()
    assert cluster.nodes[3].conf == ConfState((1, 2, 3))


def test_scenario_06_one_change_at_a_time() -> None:
    """raft 80: a second change while the first is not committed, or its joint configuration not left."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.isolate(1)
    cluster.change(1, [1, 2, 3, 4])
    assert not raft.may_change_conf()
    cluster.heal()
    cluster.pass_time(ELECTION // 2)
    assert raft.conf == ConfState((1, 2, 3, 4))
    assert raft.may_change_conf()


@pytest.mark.parametrize("learners", [(), (1,)])
def test_scenario_07_a_leader_that_is_taken_out_leads_until_it_is_committed(learners: tuple[int, ...]) -> None:
    """raft 79, confchange_v2_replace_leader_stepdown: too early and nobody commits the change, too late and a leader
    that may not vote goes on. It names its successor, so nobody waits for a timeout."""
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.change(1, [2, 3], learners)
    assert raft.is_leader
    cluster.sync(1)
    assert raft.is_leader
    cluster.settle()
    assert not raft.is_leader
    assert len(cluster.leaders) == 1
    assert cluster.leaders != [1]
    assert cluster.nodes[2].conf == ConfState((2, 3), (), learners)


def test_scenario_07_a_leader_that_is_taken_out_stands_again_until_that_is_committed() -> None:
    """Thesis section 4.2.2; found by the simulator. The leader alone has the entry that
    takes its vote away when it loses its majority: the others cannot elect anyone without its vote, and it refuses
    them, for its log is longer. So it has to stand for election itself."""
    cluster = Cluster([1, 2])
    cluster.elect(2)
    cluster.change(2, [1], [2])
    for _ in range(10):
        for member in (1, 2):
            cluster.sync(member)
        # The joint configuration gets through; the entry that leaves it does not.
        cluster.deliver(
            lambda m: not (isinstance(m, Append) and any(e.conf == ConfState((1,), (), (2,)) for e in m.entries))
        )
    cluster.drop()
    assert cluster.nodes[2].conf == ConfState((1,), (), (2,))
    assert cluster.nodes[1].conf.joint
    cluster.isolate(2)
    cluster.pass_time(3 * ELECTION)
    assert not cluster.leaders
    cluster.heal()
    cluster.pass_time(5 * ELECTION)
    assert cluster.leaders == [1]
    assert cluster.nodes[1].conf == cluster.nodes[2].conf == ConfState((1,), (), (2,))


def test_scenario_08_a_partition_during_a_change_makes_no_two_leaders_that_commit() -> None:
    """Jepsen RethinkDB 2.2.3: reconfiguration and partition, and each side had its own majority."""
    cluster = Cluster([1, 2, 3])
    for member in (4, 5):
        cluster.add(member)
    cluster.elect(1)
    cluster.settle()
    # From {1, 2, 3} to {3, 4, 5}; the joint entry is at 1, 4 and 5 when the network parts.
    state = cluster.nodes[1]
    for member in (4, 5):
        cluster.do(member, lambda raft: raft.restored(state.commit, state.term, state.conf, 1, 1))
        cluster.sync(member)
    cluster.mail.clear()
    joint = cluster.change(1, [3, 4, 5])
    cluster.cut |= {(a, b) for a in (1, 4, 5) for b in (2, 3)} | {(a, b) for a in (2, 3) for b in (1, 4, 5)}
    cluster.pass_time(5 * ELECTION)
    # 1 has a majority of the new half and not of the old; 2 and 3 have one of the old, and do not know of a new.
    assert cluster.nodes[1].commit < joint
    (leader,) = [m for m in cluster.leaders if m in (2, 3)]
    cluster.propose(leader, b"by the old majority")
    cluster.settle(2, 3)
    committed = cluster.nodes[leader].commit
    cluster.heal()
    cluster.pass_time(5 * ELECTION, 1, 2, 3)
    assert cluster.nodes[1].log.term(committed) == cluster.nodes[leader].log.term(committed)
    assert cluster.nodes[1].conf == ConfState((1, 2, 3))


# ---- what has no number ----------------------------------------------------------------------------------------


def test_several_members_are_replaced_at_once() -> None:
    cluster = Cluster([1, 2, 3], learners=[4, 5])
    cluster.elect(1)
    cluster.change(1, [1, 4, 5])
    cluster.settle()
    assert {raft.conf for m, raft in cluster.nodes.items() if m in (1, 4, 5)} == {ConfState((1, 4, 5))}


def test_a_joint_configuration_is_left_by_whoever_leads_next() -> None:
    cluster = Cluster([1, 2, 3], learners=[4])
    cluster.elect(1)
    cluster.change(1, [1, 2, 3, 4])
    cluster.deliver()
    for member in (2, 3, 4):
        cluster.sync(member)
    cluster.crash(1)
    cluster.mail.clear()
    assert cluster.nodes[2].conf.joint
    cluster.pass_time(3 * ELECTION)
    assert cluster.nodes[2].conf == ConfState((1, 2, 3, 4))


def test_learners_come_and_go_in_one_step() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    index = cluster.change(1, [1, 2, 3], [9])
    cluster.settle()
    assert raft.conf == ConfState((1, 2, 3), (), (9,))
    assert raft.conf_index == index
    cluster.change(1, [1, 2, 3])
    cluster.settle()
    assert raft.progress(9) is None


def test_a_change_ends_a_handing_over_to_who_does_not_vote_any_more() -> None:
    cluster = Cluster([1, 2, 3])
    raft = cluster.elect(1)
    cluster.isolate(2)
    cluster.propose(1, b"which 2 lacks")
    cluster.do(1, lambda r: r.transfer(2))
    assert raft.transferring
    assert raft.leading is not None
    raft.leading.append(b"", raft.conf.changed([1, 3], []).left())
    assert not raft.transferring


def test_configurations_by_index() -> None:
    first, second = ConfState((1,)), ConfState((1,), learners=(2,))
    confs = Configurations(1, first, [Entry(5, 1, b"", second), Entry(6, 1, b"x")])
    assert (confs.index, confs.current) == (5, second)
    assert confs.at(4) == (1, first)
    assert confs.at(9) == (5, second)
    assert confs.since(1) == [5]
    with pytest.raises(AssertionError, match="no configuration at 0"):
        confs.at(0)
    confs.compact(4)
    assert confs.at(4) == (1, first)
    confs.compact(5)
    with pytest.raises(AssertionError, match="no configuration at 4"):
        confs.at(4)
    confs.reset(9, first)
    confs.truncate(10)
    assert confs.current == first


def test_a_configuration_that_cannot_be_is_refused() -> None:
    for wrong in (
        lambda: ConfState((2, 1)),
        lambda: ConfState((1, 2), (1, 2), (), (2,)),
        lambda: ConfState((1,), (1, 2), (), (3,)),
        lambda: ConfState((1,)).changed([], []),
        lambda: ConfState((1,), (1, 2)).changed([1], []),
        lambda: ConfState((1,)).left(),
    ):
        with pytest.raises(InvariantViolation):
            wrong()  # type: ignore[no-untyped-call]
