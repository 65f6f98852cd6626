"""The alarm of a member ends with the member; otherwise it would stop all writes until somebody cleared it."""

from __future__ import annotations

import pytest
from holdfast.kv.store import MemoryStore
from holdfast.machine import Applied, Genesis, Machine, Restored
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.log import Entry
from holdfast.raft.quorum import ConfState
from holdfast.status import MEMBER_NOT_FOUND, NO_SPACE

NOSPACE, CORRUPT = rpc_pb2.NOSPACE, rpc_pb2.CORRUPT
STRANGER = 7  # an id that no member ever had: as in etcd, a client may raise an alarm for it


class Log:
    def __init__(self, version: str) -> None:
        self.store = MemoryStore()
        Genesis((raft_pb2.MemberInfo(id=1), raft_pb2.MemberInfo(id=2)), version).write(self.store)
        self.machine = Machine(self.store)

    def apply(self, command: raft_pb2.Command, conf: ConfState | None = None) -> Applied:
        index = self.machine.applied_index + 1
        command.origin, command.incarnation, command.seq, command.window_low = 1, 1, index, index
        done = self.machine.apply(Entry(index, 1, command.SerializeToString(), conf))
        self.machine.flush()
        assert done is not None
        return done

    def raise_alarm(self, member: int, alarm: rpc_pb2.AlarmType) -> Applied:
        request = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=member, alarm=alarm)
        return self.apply(raft_pb2.Command(alarm=request))

    def put(self) -> Applied:
        return self.apply(raft_pb2.Command(put=rpc_pb2.PutRequest(key=b"k", value=b"v")))

    def remove(self, member: int, conf: ConfState) -> Applied:
        change = raft_pb2.MemberChange(kind=raft_pb2.MemberChange.REMOVE, member=raft_pb2.MemberInfo(id=member))
        return self.apply(raft_pb2.Command(member=change), conf)

    @property
    def alarms(self) -> set[tuple[int, int]]:
        assert Machine(self.store).alarms == self.machine.alarms  # the rows say the same
        return self.machine.alarms


@pytest.mark.parametrize("alarm", [NOSPACE, CORRUPT])
def test_the_alarm_of_a_removed_member_ends(alarm: rpc_pb2.AlarmType) -> None:
    log = Log("0.2.0")
    log.raise_alarm(2, alarm)
    assert log.put().error is not None
    # In a joint configuration a leaving voter still votes, so it is still a member.
    log.remove(2, ConfState(voters=(1,), outgoing=(1, 2)))
    assert log.alarms == {(2, alarm)}
    log.remove(2, ConfState(voters=(1,)))
    assert not log.alarms
    assert log.put().error is None
    # One that was under way when the member was removed does not come back.
    assert log.raise_alarm(2, alarm).error == MEMBER_NOT_FOUND
    assert not log.alarms


def test_alarms_of_others_stay() -> None:
    log = Log("0.2.0")
    log.raise_alarm(1, NOSPACE)
    log.raise_alarm(STRANGER, NOSPACE)
    log.remove(2, ConfState(voters=(1,)))
    assert log.alarms == {(1, NOSPACE), (STRANGER, NOSPACE)}
    assert log.put().error == NO_SPACE


def test_at_level_1_it_ends_only_when_the_level_rises() -> None:
    """Members of version 0.1 apply the same log, and keep the alarm."""
    log = Log("0.1.0")
    log.raise_alarm(2, NOSPACE)
    log.remove(2, ConfState(voters=(1,)))
    assert log.alarms == {(2, NOSPACE)}
    assert log.raise_alarm(2, CORRUPT).error is None
    version = raft_pb2.ClusterVersion(version="0.2.0")
    assert log.apply(raft_pb2.Command(cluster_version=version, system=True)).error is None
    assert not log.alarms
    assert log.put().error is None


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_restored_cluster_has_no_alarm_of_a_member_of_the_old_one(version: str) -> None:
    log = Log(version)
    log.raise_alarm(2, CORRUPT)
    log.raise_alarm(1, NOSPACE)
    log.raise_alarm(STRANGER, NOSPACE)
    Restored(raft_pb2.MemberInfo(id=9), 0).write(log.machine)
    assert Machine(log.store).alarms == {(STRANGER, NOSPACE)}
