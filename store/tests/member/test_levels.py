"""The behaviour of `apply` changes only once every member of the cluster supports it; an entry of the log says when."""

from __future__ import annotations

import pytest
from holdfast.kv.store import MemoryStore
from holdfast.levels import CLUSTER_VERSION, LEVEL
from holdfast.machine import Genesis, Machine
from holdfast.member import codec
from holdfast.proto import raft_pb2
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.messages import HeartbeatReply

from .member import SECOND, Members

Change = raft_pb2.MemberChange


def versions(members: Members) -> set[str]:
    return {core.machine.cluster_version for core in members.cores.values()}


def test_the_version_rises_once_all_members_can_do_it_learners_too() -> None:
    members = Members(1, 2, 3, version="0.1.0")
    members.cores[3].raft.level = 0  # a program that says nothing of levels
    members.elect(1)
    members.pass_time(3 * SECOND)
    assert versions(members) == {"0.1.0"}
    # It is upgraded, and meanwhile there is a learner that is not.
    members.cores[3].raft.level = LEVEL
    members.cores[2].raft.level = 1
    store = MemoryStore()
    members.pass_time(SECOND)
    members.start(9, store).raft.level = 1
    members.change(1, 7, Change.ADD_LEARNER, 9)
    members.cores[2].raft.level = LEVEL
    members.settle()
    members.pass_time(3 * SECOND)
    assert versions(members) - {""} == {"0.1.0"}
    members.cores[9].raft.level = LEVEL
    members.pass_time(SECOND)
    assert {members.cores[m].machine.cluster_version for m in (1, 2, 3)} == {CLUSTER_VERSION}
    assert Machine(members.stores[2]).level == LEVEL


def test_what_a_member_said_to_an_earlier_leader_does_not_count() -> None:
    members = Members(1, 2, 3, version="0.1.0")
    members.cores[3].raft.level = 1
    members.elect(1)
    members.pass_time(SECOND)
    members.cores[3].raft.level = LEVEL
    members.isolate(3)
    members.elect(2)
    members.pass_time(SECOND // 2)
    assert versions(members) == {"0.1.0"}
    members.cut.clear()
    members.pass_time(3 * SECOND)
    assert versions(members) == {CLUSTER_VERSION}


def test_commands_tell_older_programs_to_stop_once_the_version_has_risen() -> None:
    members = Members(1, version="0.1.0")
    members.cores[1].raft.level = LEVEL
    members.put(1, 1, b"k")
    members.pass_time(3 * SECOND)
    members.put(1, 2, b"k")
    log = members.cores[1].raft.log
    commands = [raft_pb2.Command.FromString(e.data) for e in log.since(log.first) if e.data]
    assert [c.format for c in commands if c.WhichOneof("op") == "put"] == [1, 2]


def test_a_state_of_a_newer_version_is_refused_in_words() -> None:
    store = MemoryStore()
    Genesis((raft_pb2.MemberInfo(id=1),), "0.3.0").write(store)
    with pytest.raises(InvariantViolation, match=r"cluster of version '0\.3\.0'.*upgrade it"):
        Machine(store)


def test_a_level_travels_and_its_absence_is_the_first() -> None:
    reply = HeartbeatReply(1, 2, 3, 4, True, LEVEL)
    again = codec.decode(codec.encode(reply), 1, 2)
    assert isinstance(again, HeartbeatReply)
    assert (again.round, again.promise, again.level) == (4, True, LEVEL)
    old = raft_pb2.PeerMessage(term=3, heartbeat_reply=raft_pb2.HeartbeatReply(round=4))
    absent = codec.decode(old, 1, 2)
    assert isinstance(absent, HeartbeatReply)
    assert absent.level == 0
