"""A member whose directory was replaced by an older copy (etcd 13509): its vote must not lose what it acknowledged."""

from __future__ import annotations

import copy

import pytest
from holdfast.kv.store import MemoryStore
from holdfast.member.interface import PeerMessage
from holdfast.raft.messages import Heartbeat

from .member import SECOND, Members

LEADER, ROLLED_BACK, OTHER = 1, 2, 3
KEYS = 5


def formed(*, other_has_all: bool) -> Members:
    """The leader and one follower have committed some keys; the follower is back with what it had before them."""
    members = Members(LEADER, ROLLED_BACK, OTHER)
    members.elect(LEADER)
    members.settle()
    disk = copy.deepcopy(members.disks[ROLLED_BACK])
    store: MemoryStore = members.stores[ROLLED_BACK].snapshot()
    if not other_has_all:
        members.isolate(OTHER)
    for n in range(KEYS):
        members.put(LEADER, n, b"k%d" % n)
    members.settle()
    assert members.cores[LEADER].machine.space.count(b"k", b"l") == KEYS, "committed"
    members.disks[ROLLED_BACK] = disk
    members.start(ROLLED_BACK, store)
    return members


def without_leader(members: Members) -> list[int]:
    """The leader after the old leader has stopped, with the others connected."""
    del members.cores[LEADER]
    members.cut.clear()
    members.isolate(LEADER)
    members.pass_time(10 * SECOND)
    return [id for id, core in members.cores.items() if core.is_leader]


def test_nobody_is_elected_who_lacks_what_was_acknowledged() -> None:
    """Both remaining members lack it. It used to be lost silently; now they wait for the leader to come back."""
    members = formed(other_has_all=False)
    members.pass_time(2 * SECOND)
    assert any("an older copy" in why for _, why in members.refused)
    leader, store = members.cores[LEADER], members.stores[LEADER]
    assert without_leader(members) == []
    members.cut.clear()
    members.start(LEADER, store)
    members.pass_time(10 * SECOND)
    assert leader.machine.space.count(b"k", b"l") == KEYS
    for core in members.cores.values():
        assert core.machine.space.count(b"k", b"l") == KEYS, "the new leader of a new term sends what was lost"
        assert not core.raft.incomplete


def test_who_has_all_of_it_is_elected_with_its_vote() -> None:
    members = formed(other_has_all=True)
    members.pass_time(2 * SECOND)
    assert members.cores[ROLLED_BACK].raft.incomplete
    assert without_leader(members) == [OTHER]
    assert members.cores[ROLLED_BACK].machine.space.count(b"k", b"l") == KEYS
    assert not members.cores[ROLLED_BACK].raft.incomplete


@pytest.mark.parametrize("told_by", [LEADER, OTHER])
def test_only_its_leader_is_believed(told_by: int) -> None:

    members = formed(other_has_all=True)
    members.drop()
    core = members.cores[ROLLED_BACK]
    core.raft.leader = LEADER
    members.step(ROLLED_BACK, PeerMessage(Heartbeat(ROLLED_BACK, told_by, core.term, 10**6, 1)))
    assert core.raft.incomplete is (told_by == LEADER)
