"""The leader's part of leases, by itself: events, proposals, and which renewals may be acknowledged."""

from __future__ import annotations

from holdfast.kv.store import MemoryStore
from holdfast.machine import Genesis, LeaseEvent, Machine
from holdfast.member.lease_clock import SECOND
from holdfast.member.lessor import Lessor
from holdfast.member.messages import Renew
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.types import Settings


class Leader:
    """A machine and its lessor, without Raft: what is proposed is applied when the test says so."""

    def __init__(self, **leases: int) -> None:
        store = MemoryStore()
        Genesis((raft_pb2.MemberInfo(id=1, name="m"),)).write(store)
        self.machine = Machine(store)
        self.lessor = Lessor(Settings(lease_checkpoint_ns=10 * SECOND))
        self.now = 0
        self.lessor.promote(self.machine, self.now)
        for name, ttl in leases.items():
            self.apply(raft_pb2.Command(lease_grant=raft_pb2.LeaseGrant(id=int(name[1:]), ttl_seconds=ttl)))

    @property
    def next_index(self) -> int:
        return self.machine.applied_index + 1

    def apply(self, command: raft_pb2.Command) -> None:
        index = self.next_index
        command.format, command.origin, command.incarnation, command.seq = 1, 1, 1, index
        applied = self.machine.apply(Entry(index, 1, command.SerializeToString()))
        assert applied is not None
        if isinstance(applied.effect, LeaseEvent):
            self.lessor.applied(applied.effect, self.now)

    def due(self) -> list[raft_pb2.Command]:
        return self.lessor.due(self.machine, self.now)


def renew(id: int, *leases: int, query: bool = False) -> Renew:
    return Renew(1, 2, 1, id, list(leases), query)


def test_a_lease_that_has_its_full_ttl_again_is_never_shortened_or_revived() -> None:
    lessor = Lessor(Settings())
    lessor.applied(LeaseEvent({1: 5, 2: 5}, granted=True), 0)
    lessor.applied(LeaseEvent({1: 3}, granted=False), SECOND)
    assert lessor.clock.remaining(1, 0) == 5
    lessor.applied(LeaseEvent({1: 5}, granted=False), SECOND)
    assert lessor.clock.remaining(1, 0) == 6
    assert lessor.clock.expired(5 * SECOND, 10, 20 * SECOND) == [2]
    lessor.applied(LeaseEvent({2: 5}, granted=False), 5 * SECOND)
    assert not lessor.clock.renew(2, 5, 5 * SECOND)


def test_a_lease_that_was_revoked_meanwhile_is_not_revoked_again() -> None:
    leader = Leader(_7=5, _8=5)
    leader.apply(raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=7)))
    leader.now = 5 * SECOND
    assert [command.lease_revoke.id for command in leader.due()] == [8]


def test_a_renewal_waits_until_the_checkpoint_of_its_lease_is_taken_back() -> None:
    leader = Leader(_7=60)
    leader.now = 10 * SECOND
    (checkpoint,) = leader.due()
    leader.apply(checkpoint)
    assert leader.machine.remaining == {7: 50}
    leader.lessor.confirmed(leader.machine.applied_index, renew(1, 7))
    answered, (command,) = leader.lessor.renewals(leader.machine, leader.now, leader.next_index)
    assert answered == []
    assert leader.lessor.waiting
    leader.apply(command)
    assert leader.machine.remaining == {}
    answered, commands = leader.lessor.renewals(leader.machine, leader.now, leader.next_index)
    assert [(question.id, ttls) for question, ttls in answered] == [(1, [60])]
    assert commands == []


def test_two_renewals_of_one_lease_wait_both() -> None:
    """The first proposed to take the checkpoint back, and the second one was acknowledged without waiting for that: a
    leader elected now would have ended the lease early."""
    leader = Leader(_7=60, _8=60)
    leader.now = 10 * SECOND
    leader.due()  # a checkpoint, which is in the log and not applied yet
    for question in (renew(1, 7), renew(2, 7), renew(3, 9), renew(4, 7, query=True)):
        leader.lessor.confirmed(leader.machine.applied_index, question)
    answered, commands = leader.lessor.renewals(leader.machine, leader.now, leader.next_index)
    assert [(question.id, ttls) for question, ttls in answered] == [(3, [0]), (4, [50])]
    assert [list(command.lease_checkpoint.ids) for command in commands] == [[7], [7]]
    for command, id in zip(commands, (1, 2), strict=True):
        leader.apply(command)
        answered, more = leader.lessor.renewals(leader.machine, leader.now, leader.next_index)
        assert [(question.id, ttls) for question, ttls in answered] == [(id, [60])]
        assert more == []


def test_a_renewal_that_needs_a_proposal_is_dropped_while_nothing_can_be_proposed() -> None:
    leader = Leader(_7=60, _8=5)
    leader.now = 10 * SECOND
    leader.due()
    leader.lessor.confirmed(1, renew(1, 7))
    leader.lessor.confirmed(1, renew(2, 8))
    answered, commands = leader.lessor.renewals(leader.machine, leader.now, None)
    assert [(question.id, ttls) for question, ttls in answered] == [(2, [0])]
    assert commands == []
    assert not leader.lessor.waiting
    assert leader.lessor.clock.checkpointed(7)


def test_renewals_are_forgotten_with_leadership() -> None:
    leader = Leader(_7=60)
    leader.lessor.confirmed(99, renew(1, 7))
    leader.lessor.demote()
    assert not leader.lessor.waiting
    assert leader.lessor.deadline is None
