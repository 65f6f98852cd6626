"""Consistent caches: what is appended while clients hold leases, and who gets one."""

from __future__ import annotations

import pytest
from holdfast.member.cache_leases import CLOSED_TIMES, CONFIRM_NS, MAX_HOLDERS
from holdfast.member.interface import CacheGiven, HoldCache, PeerMessage, Propose, ReleaseCache
from holdfast.member.messages import Forward
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.messages import Append, TimeoutNow, Vote, VoteReply

from .member import LATE, MS, SECOND, Members

PREFIX, KEY, ELSEWHERE = b"app/", b"app/colour", b"other"
HOLDER = 900
LEASE_SECONDS = 2.2  # with the drift of clocks


def declared(*ids: int) -> Members:
    """A cluster whose first member leads, for long enough, and in which PREFIX is cachable."""
    members = Members(*ids)
    members.elect(1)
    members.pass_time(3 * SECOND)
    members.ask(1, 1, cachable(PREFIX))
    members.settle()
    assert members.error(1) == ""
    return members


def cachable(prefix: bytes, *, allowed: bool = True) -> raft_pb2.Command:
    return raft_pb2.Command(cachable=raft_pb2.CachablePrefix(prefix=prefix, allowed=allowed))


def hold(
    members: Members, number: int = 1, acknowledged: int = 0, id: int = HOLDER, member: int = 1
) -> list[CacheGiven]:
    """Send a holder's message; returns what it is told because of it."""
    before = len(members.caches)
    members.step(member, HoldCache(id, PREFIX, b"app0", number, acknowledged))
    members.settle()
    members.now += CONFIRM_NS
    members.step(member)
    members.settle()
    return [given for given in members.caches[before:] if given.id == id]


def told(members: Members, id: int = HOLDER) -> CacheGiven:
    return next(given for given in reversed(members.caches) if given.id == id)


def there(members: Members) -> bool:
    return members.cores[1].machine.space.get(KEY) is not None


def test_a_write_waits_until_the_copy_is_invalid() -> None:
    members = declared(1, 2, 3)
    (given,) = hold(members)
    assert (given.number, given.lease_ms, given.refused) == (1, 2000, None)
    assert given.revision == members.cores[1].machine.space.revision
    members.put(2, 2, KEY, b"blue")
    members.put(2, 3, ELSEWHERE, b"x")
    members.settle()
    assert 2 not in members.answers
    assert members.error(3) == ""
    assert told(members).invalidations == 1
    last = members.cores[1].raft.log.last
    (given,) = hold(members, 2, acknowledged=1)
    assert members.cores[1].raft.log.last == last + 1
    assert members.error(2) == ""
    assert given.number == 2
    assert given.revision == members.cores[1].machine.space.revision


def test_no_lease_is_given_before_the_change_is_applied() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.put(1, 2, KEY, b"blue")
    members.isolate(1)  # the write cannot be committed
    assert hold(members, 2, acknowledged=1) == []
    assert hold(members, 3, acknowledged=1) == []


def test_a_write_waits_no_longer_than_the_lease() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.put(1, 2, KEY, b"blue")
    members.pass_time(int((LEASE_SECONDS - 0.1) * SECOND))
    assert 2 not in members.answers
    members.pass_time(SECOND // 5)
    assert members.error(2) == ""
    refused = told(members).refused
    assert refused is not None
    assert "before its holder acknowledged" in refused.message
    # Whoever makes writes wait closes the prefix for caches.
    assert hold(members, id=HOLDER + 1) == []
    members.put(1, 3, KEY, b"red")
    members.settle()
    assert members.error(3) == ""
    members.pass_time(int(CLOSED_TIMES * LEASE_SECONDS) * SECOND)
    (given,) = hold(members, 2, id=HOLDER + 1)
    assert given.number == 2


def test_who_has_ended_its_stream_is_waited_for_unless_it_released_its_copy() -> None:
    members = declared(1, 2, 3)
    for number, done in enumerate((True, False)):
        hold(members, id=HOLDER + number)
        members.step(1, ReleaseCache(HOLDER + number, done))
        members.put(1, 10 + number, KEY, b"blue")
        members.settle()
        assert (10 + number in members.answers) is done
    members.pass_time(int(LEASE_SECONDS * SECOND))
    assert members.error(11) == ""


def test_a_new_leader_waits_for_the_leases_of_the_one_before() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.isolate(1)
    members.elect(2)
    members.put(2, 2, KEY, b"blue")
    members.put(2, 3, ELSEWHERE, b"x")
    members.settle()
    assert members.error(3) == ""
    members.pass_time(int((LEASE_SECONDS - 0.1) * SECOND))
    assert 2 not in members.answers
    members.pass_time(SECOND // 5)
    assert members.error(2) == ""


def test_a_leader_that_is_elected_in_the_turn_of_a_write_waits_too() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.isolate(1)
    core = members.cores[2]
    members.step(2, PeerMessage(TimeoutNow(2, 0, core.term)))
    (vote,) = [m for m in members.mail if isinstance(m, Vote) and m.to == 3]
    members.step(3, PeerMessage(vote))
    (reply,) = members.drop(lambda m: isinstance(m, VoteReply))
    assert isinstance(reply, VoteReply)
    assert reply.granted
    write = raft_pb2.Command(
        format=2, origin=3, incarnation=1, seq=1, window_low=1, put=rpc_pb2.PutRequest(key=KEY, value=b"blue")
    )
    before = core.raft.log.last
    members.step(2, PeerMessage(reply), PeerMessage(Forward(2, 3, core.term, [write.SerializeToString()])))
    assert core.is_leader
    assert core.raft.log.last == before + 1  # the first entry of the term


def test_a_new_leader_knows_of_declarations_that_it_has_not_applied() -> None:
    members = Members(1, 2, 3)
    members.elect(1)
    members.ask(1, 1, cachable(PREFIX))
    members.deliver(lambda m: isinstance(m, Append))
    members.drop()
    assert members.cores[2].machine.cachable == set()
    members.cut |= {(1, 2), (2, 1), (1, 3), (3, 1)}
    members.step(2, PeerMessage(TimeoutNow(2, 0, members.cores[2].term)))
    members.step(2, Propose(2, raft_pb2.Command(put=rpc_pb2.PutRequest(key=KEY)), LATE))
    members.settle()
    assert members.cores[2].machine.cachable == {PREFIX}
    assert 2 not in members.answers
    members.pass_time(int((LEASE_SECONDS + 0.2) * SECOND))
    assert members.error(2) == ""


def test_no_lease_without_a_majority() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.isolate(1)
    assert hold(members, 2) == []


def test_a_member_that_does_not_lead_refuses() -> None:
    members = declared(1, 2, 3)
    (given,) = hold(members, member=2)
    assert given.refused is not None
    assert given.refused.message == "etcdserver: not leader"
    hold(members)
    members.isolate(1)
    members.elect(2)
    members.cut.clear()
    members.pass_time(SECOND)
    refused = told(members).refused
    assert refused is not None
    assert refused.message == "etcdserver: not leader"


@pytest.mark.parametrize(
    "command",
    [
        raft_pb2.Command(delete_range=rpc_pb2.DeleteRangeRequest(key=b"a", range_end=b"b")),
        raft_pb2.Command(delete_range=rpc_pb2.DeleteRangeRequest(key=b"\x00", range_end=b"\x00")),
        raft_pb2.Command(
            txn=rpc_pb2.TxnRequest(
                failure=[
                    rpc_pb2.RequestOp(
                        request_txn=rpc_pb2.TxnRequest(
                            success=[rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=KEY))]
                        )
                    )
                ]
            )
        ),
    ],
)
def test_whatever_may_change_a_key_waits(command: raft_pb2.Command) -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.ask(1, 2, command)
    members.settle()
    assert 2 not in members.answers
    hold(members, 2, acknowledged=1)
    assert members.error(2) == ""


@pytest.mark.parametrize("in_flight", [False, True])
def test_the_end_of_a_lease_waits_if_keys_of_the_prefix_are_attached_to_it(in_flight: bool) -> None:
    members = declared(1, 2, 3)
    members.grant(1, 2, 77, 60)
    members.settle()
    members.put(1, 3, KEY, b"mine", lease=77)
    if not in_flight:
        members.settle()
        hold(members)
        members.ask(1, 4, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=77)))
        members.settle()
        assert 4 not in members.answers
        return
    zones = members.cores[1].caches.touched(
        raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=77)), members.cores[1].machine
    )
    assert [zone.prefix for zone in zones] == [PREFIX]


def test_an_expired_lease_waits_too_and_its_revocation_is_not_lost() -> None:
    members = declared(1, 2, 3)
    members.grant(1, 2, 77, 3)
    members.put(1, 3, KEY, b"mine", lease=77)
    members.settle()
    members.pass_time(2900 * MS)
    hold(members)
    members.pass_time(1500 * MS)
    assert there(members)
    members.put(1, 4, ELSEWHERE, b"x")  # is named after the revocation was, if that had a name already
    members.settle()
    hold(members, 2, acknowledged=1)
    assert not there(members)


def test_a_command_that_touches_two_prefixes_waits_for_both() -> None:
    members = declared(1, 2, 3)
    members.ask(1, 2, cachable(b"b/"))
    members.settle()
    hold(members)
    members.step(1, HoldCache(HOLDER + 1, b"b/x", b"", 1, 0))
    members.pass_time(50 * MS)
    ops = [rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key)) for key in (KEY, b"b/y")]
    members.ask(1, 3, raft_pb2.Command(txn=rpc_pb2.TxnRequest(success=ops)))
    members.settle()
    assert [told(members, id).invalidations for id in (HOLDER, HOLDER + 1)] == [1, 1]
    assert hold(members, 2, acknowledged=1) == []  # no lease amid the change
    assert 3 not in members.answers
    members.step(1, HoldCache(HOLDER + 1, b"", b"", 2, 1))
    members.pass_time(50 * MS)
    assert members.error(3) == ""
    assert [told(members, id).number for id in (HOLDER, HOLDER + 1)] == [2, 2]


def test_a_lease_that_is_renewed_keeps_its_revision() -> None:
    members = declared(1, 2, 3)
    (first,) = hold(members)
    members.put(1, 2, ELSEWHERE)
    members.settle()
    (second,) = hold(members, 2)
    assert second.revision == first.revision


def test_what_is_asked_of_the_leader_is_checked() -> None:
    members = declared(1, 2, 3)
    members.step(1, HoldCache(1, b"ap", b"", 1, 0))
    members.step(1, HoldCache(2, b"app", b"aq", 1, 0))
    assert [told(members, id).refused is not None for id in (1, 2)] == [True, True]
    hold(members, 5)
    (given,) = hold(members, 5)  # a number again
    assert given.refused is not None
    hold(members, 1, id=HOLDER + 1)
    (given,) = hold(members, 2, acknowledged=1, id=HOLDER + 1)  # of an invalidation that was not sent
    assert given.refused is not None


def test_a_prefix_has_so_many_holders_at_most() -> None:
    members = declared(1, 2, 3)
    for number in range(MAX_HOLDERS):
        (given,) = hold(members, id=number)
        assert given.refused is None
    (given,) = hold(members, id=MAX_HOLDERS)
    assert given.refused is not None
    assert "64 clients" in given.refused.message
    (given,) = hold(members, 2, id=1)  # renews; all others do not
    members.pass_time(int(LEASE_SECONDS * SECOND) - 200 * MS)
    (given,) = hold(members, 3, id=1)
    members.pass_time(400 * MS)
    assert members.cores[1].cache_holders == 1
    (given,) = hold(members, id=MAX_HOLDERS + 1)
    assert given.refused is None
    idle = told(members, 5).refused
    assert idle is not None
    assert "has not renewed" in idle.message
    (given,) = hold(members, 4, id=1)
    assert given.refused is None


def test_a_prefix_is_taken_back_once_its_copies_are_invalid() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.ask(1, 2, cachable(PREFIX, allowed=False))
    members.settle()
    assert 2 not in members.answers
    hold(members, 2, acknowledged=1)
    assert members.error(2) == ""
    refused = told(members).refused
    assert refused is not None
    assert "was forbidden" in refused.message


def test_leases_of_clients_are_forgotten_once_their_keys_are_attached() -> None:
    members = declared(1, 2, 3)
    zone = members.cores[1].caches._by_prefix[PREFIX]
    for number in range(10):
        members.grant(1, 100 + number, 77 + number, 60)
        members.put(1, 200 + number, KEY, lease=77 + number)
        assert 77 + number in zone.leased
        members.settle()
    assert len(zone.leased) == len(zone.order) == 1


def test_who_acknowledges_late_closes_the_prefix_for_ten_times_as_long() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.put(1, 2, KEY)
    members.pass_time(50 * MS)
    assert len(hold(members, 2, acknowledged=1)) == 1, "this was prompt"
    members.put(1, 3, KEY)
    members.pass_time(SECOND)
    assert hold(members, 3, acknowledged=2) == []
    assert members.error(3) == ""
    members.pass_time(9 * SECOND)
    assert hold(members, 4, acknowledged=2) == []
    members.pass_time(2 * SECOND)
    assert len(hold(members, 5, acknowledged=2)) == 1


def test_a_holder_whose_stream_the_server_ended_closes_nothing() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.step(1, ReleaseCache(HOLDER, False, excused=True))
    members.put(1, 2, KEY)
    members.settle()
    assert 2 not in members.answers
    members.pass_time(int(LEASE_SECONDS * SECOND))
    assert members.error(2) == ""
    assert len(hold(members, id=HOLDER + 1)) == 1


def test_who_releases_late_closes_the_prefix_too() -> None:
    members = declared(1, 2, 3)
    hold(members)
    members.put(1, 2, KEY)
    members.pass_time(SECOND)
    members.step(1, ReleaseCache(HOLDER, done=True))
    members.settle()
    assert members.error(2) == ""
    assert hold(members, id=HOLDER + 1) == []
    members.pass_time(11 * SECOND)
    assert len(hold(members, 2, id=HOLDER + 1)) == 1
