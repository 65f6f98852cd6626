"""The lock-delay of leases: their keys stay for a time when they expire, and go at once when they are revoked."""

from __future__ import annotations

from holdfast.machine import Machine
from holdfast.proto import raft_pb2

from .member import SECOND, Members

LEASE, KEY = 7, b"/locks/a/7"
TTL, DELAY = 3, 10


def holding(members: Members, delay: int = DELAY) -> None:
    """A holder with a lock-delay."""
    grant = raft_pb2.LeaseGrant(id=LEASE, ttl_seconds=TTL, delay_seconds=delay)
    members.ask(1, 1, raft_pb2.Command(lease_grant=grant))
    members.settle()
    members.put(1, 2, KEY, lease=LEASE)
    members.settle()


def there(members: Members, member: int = 1) -> bool:
    return KEY in members.cores[member].machine.space.leased.get(LEASE, ())


def test_an_expired_lease_is_gone_and_its_keys_stay_for_the_delay() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    holding(members)
    members.pass_time((TTL + 1) * SECOND)
    assert all(LEASE not in core.machine.leases for core in members.cores.values())
    assert there(members)
    members.keep_alive(1, 3, LEASE)
    members.keep_alive(1, 4, LEASE, query=True)
    members.put(1, 5, b"another", lease=LEASE)
    members.grant(1, 6, LEASE, 60)
    members.ask(1, 7, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=LEASE)))
    members.settle()
    assert members.answers[3].ttl == 0
    assert members.answers[4].ttl == -1
    assert [members.error(id) for id in (5, 6, 7)] == [
        "etcdserver: requested lease not found",
        "etcdserver: lease already exists",
        "etcdserver: requested lease not found",
    ]
    members.pass_time((DELAY - 2) * SECOND)
    assert there(members)
    members.pass_time(2 * SECOND)
    assert not there(members)
    assert len({core.machine.digest for core in members.cores.values()}) == 1


def test_a_lease_that_is_revoked_has_no_delay() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    holding(members)
    members.ask(1, 3, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=LEASE)))
    members.settle()
    assert members.error(3) == ""
    assert not there(members)
    assert not members.cores[2].machine.delays


def test_a_new_leader_waits_in_full() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    holding(members)
    members.pass_time((TTL + DELAY - 1) * SECOND)
    assert there(members)
    members.elect(2)
    members.pass_time((DELAY - 1) * SECOND)
    assert there(members)
    members.pass_time(3 * SECOND)
    assert not there(members)


def test_a_first_step_that_is_proposed_twice_skips_nothing() -> None:
    """A leader proposes it again when it takes long, and both may be committed."""
    members = Members(1, 2, 3)
    members.elect(1)
    holding(members)
    expire = raft_pb2.LeaseRevoke(id=LEASE, expired=True)
    for id in (3, 4):
        members.ask(1, id, raft_pb2.Command(lease_revoke=expire, system=True))
    members.settle()
    assert members.error(4) == "etcdserver: requested lease not found"
    members.pass_time((DELAY - 1) * SECOND)
    assert there(members)


def test_a_client_cannot_take_a_step_of_the_leader() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    holding(members)
    members.pass_time((TTL + 1) * SECOND)
    over = raft_pb2.LeaseRevoke(id=LEASE, delay_over=True)
    members.ask(1, 3, raft_pb2.Command(lease_revoke=over))
    members.settle()
    assert members.error(3) == "etcdserver: requested lease not found"
    assert there(members)


def test_the_delay_survives_a_restart() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    holding(members)
    assert Machine(members.stores[2]).delays == {LEASE: DELAY}
    members.pass_time((TTL + 1) * SECOND)
    reopened = Machine(members.stores[2])
    assert (dict(reopened.leases), reopened.delays, reopened.delayed) == ({}, {}, {LEASE: DELAY})


def test_at_the_level_before_the_delay_is_ignored_by_all() -> None:
    members = Members(1, 2, 3, version="0.1.0")
    members.elect(1)
    holding(members)
    if members.cores[1].machine.level == 1:
        assert not members.cores[1].machine.delays
