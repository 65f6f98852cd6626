"""Whatever a peer sends is refused with a reason, or accepted; and the members keep running."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from holdfast.kv.store import MemoryStore
from holdfast.machine import FORMAT
from holdfast.member import codec
from holdfast.member.interface import PeerMessage
from holdfast.member.validate import MAX_TERM, MAX_TERM_JUMP
from holdfast.proto import raft_pb2, rpc_pb2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .member import SECOND, Members

PM = raft_pb2.PeerMessage
LEADER, FOLLOWER, OTHER = 1, 2, 3


def formed() -> Members:
    members = Members(LEADER, FOLLOWER, OTHER)
    members.elect(LEADER)
    members.put(LEADER, 1, b"k")
    members.settle()
    return members


def send(members: Members, to: int, wire: raft_pb2.PeerMessage, frm: int) -> str:
    """Pass the message to the core as the node does. Returns why it was refused."""
    try:
        message = codec.decode(wire, to, frm)
    except codec.Malformed as malformed:
        return str(malformed)
    members.refused.clear()
    if message is not None:
        members.step(to, PeerMessage(message))
    return members.refused[0][1] if members.refused else ""


def command(origin: int = FOLLOWER, **fields: object) -> raft_pb2.Command:
    known = {"format": FORMAT, "origin": origin, "incarnation": 9, "seq": 1}
    return raft_pb2.Command(**{**known, **fields})  # type: ignore[arg-type]


REMOVES_THE_LEADER = command(
    OTHER, member=raft_pb2.MemberChange(kind=raft_pb2.MemberChange.REMOVE, member=raft_pb2.MemberInfo(id=LEADER))
).SerializeToString()


def put(key: bytes = b"evil") -> rpc_pb2.PutRequest:
    return rpc_pb2.PutRequest(key=key)


def go_on(members: Members) -> None:
    """The cluster accepts a write, if need be after an election; all members run and agree."""
    members.settle()
    members.pass_time(8 * SECOND)
    for member in members.cores:
        members.put(member, 100 + member, b"after%d" % member)
    members.pass_time(2 * SECOND)
    for member, core in members.cores.items():
        assert members.error(100 + member) == ""
        assert core.machine.space.count(b"after1", b"after9") == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff", "not a command"),
        (b"", "format 0"),
        (command(format=99, put=put()).SerializeToString(), "format 99"),
        (command().SerializeToString(), "without an operation"),
        (command(origin=OTHER, put=put()).SerializeToString(), "a command of 3, forwarded by 2"),
        (command(system=True, put=put()).SerializeToString(), "on nobody's behalf"),
        (command(lease_checkpoint=raft_pb2.LeaseCheckpoint()).SerializeToString(), "lease_checkpoint"),
        (command(lease_checkpoint=raft_pb2.LeaseCheckpoint(ids=[1])).SerializeToString(), "checkpoint of leases"),
        (command(auth=raft_pb2.AuthChange()).SerializeToString(), "users or roles"),
    ],
)
def test_a_forwarded_command_that_cannot_be_applied_is_never_appended(data: bytes, why: str) -> None:
    members = formed()
    log = members.cores[LEADER].raft.log
    last = log.last
    term = members.cores[LEADER].term
    assert why in send(members, LEADER, PM(term=term, forward=raft_pb2.Forward(commands=[data])), FOLLOWER)
    assert log.last == last
    go_on(members)


def test_a_forwarded_request_that_no_service_would_take_is_rejected() -> None:
    members = formed()
    last = members.cores[LEADER].raft.log.last
    term = members.cores[LEADER].term
    data = command(put=put(b"")).SerializeToString()
    assert send(members, LEADER, PM(term=term, forward=raft_pb2.Forward(commands=[data])), FOLLOWER) == ""
    assert [m.reason for m in members.mail if hasattr(m, "reason")] == ["etcdserver: key is not provided"]
    assert members.cores[LEADER].raft.log.last == last


def test_who_is_no_member_forwards_nothing() -> None:
    members = formed()
    data = command(origin=0x99, put=put()).SerializeToString()
    term = members.cores[LEADER].term
    assert "not a member" in send(members, LEADER, PM(term=term, forward=raft_pb2.Forward(commands=[data])), 0x99)


def test_what_a_leader_of_the_past_sent_is_late_and_not_wrong() -> None:
    members = formed()
    members.elect(OTHER)
    members.settle()
    log = members.cores[FOLLOWER].raft.log
    last, term = log.last, log.term(log.last - 1)
    assert term is not None
    late = raft_pb2.Entry(index=last, term=term)
    append = raft_pb2.Append(prev_index=last - 1, prev_term=term, entries=[late])
    assert send(members, FOLLOWER, PM(term=term, append=append), LEADER) == ""
    go_on(members)


def test_messages_that_would_break_an_invariant_are_refused() -> None:
    members = formed()
    leader = members.cores[LEADER].raft
    term, last, log_term = leader.term, leader.log.last, leader.log.last_term
    E, A = raft_pb2.Entry, raft_pb2.Append
    data = command(put=put()).SerializeToString()
    future = command(format=99, put=put()).SerializeToString()

    def append(*entries: raft_pb2.Entry, prev: int = last, term: int = term) -> raft_pb2.PeerMessage:
        return PM(term=term, append=A(prev_index=prev, prev_term=log_term, entries=entries))

    conf = raft_pb2.ConfState(voters=[3, 1])
    cases = [
        (FOLLOWER, LEADER, append(E(index=last + 9, term=term)), "in the place of"),
        (FOLLOWER, LEADER, append(E(index=last + 1, term=term + 1)), "of term"),
        (FOLLOWER, LEADER, append(E(index=last + 1, term=term), E(index=last + 2, term=term - 1)), "of term"),
        (FOLLOWER, LEADER, append(E(index=last + 1, term=term, conf=conf)), "not sorted"),
        (FOLLOWER, LEADER, append(E(index=last + 1, term=term, data=b"\xff")), "not a command"),
        (FOLLOWER, LEADER, append(E(index=last + 1, term=term, data=future)), "format 99"),
        (FOLLOWER, OTHER, append(E(index=last + 1, term=term, data=data)), "in which 1 does"),
        (LEADER, OTHER, PM(term=term, heartbeat=raft_pb2.Heartbeat(round=1)), "in which 1 does"),
        (FOLLOWER, OTHER, append(E(index=last, term=term + 5), prev=last - 1, term=term + 5), "committed here"),
        (FOLLOWER, LEADER, PM(term=term, heartbeat=raft_pb2.Heartbeat(commit=10**6)), "commit 1000000"),
        (LEADER, OTHER, PM(term=term, append_reply=raft_pb2.AppendReply(ok=True, index=last + 1)), "has entries"),
        (FOLLOWER, OTHER, PM(term=2**64 - 1, heartbeat=raft_pb2.Heartbeat(round=1)), "term 184"),
        (FOLLOWER, OTHER, PM(term=MAX_TERM, vote=raft_pb2.Vote()), "term"),
        (FOLLOWER, OTHER, PM(term=term + MAX_TERM_JUMP + 1, vote=raft_pb2.Vote()), "term"),
        (FOLLOWER, OTHER, PM(term=term + 1, vote=raft_pb2.Vote(last_index=9, last_term=term + 2)), "asks for a vote"),
        (FOLLOWER, LEADER, PM(term=term, renew_reply=raft_pb2.RenewReply(id=1, leases=[1])), "0 times for 1 leases"),
        (FOLLOWER, LEADER, PM(term=term, read_reply=raft_pb2.ReadReply(id=1, index=2**63)), "reads after"),
    ]
    for to, frm, wire, why in cases:
        assert why in send(members, to, wire, frm), wire
    go_on(members)
    assert [core.term for core in members.cores.values()] == [term] * 3


# ---- anything at all -------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(0, 12), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)
)
ids = st.one_of(st.integers(0, 4), st.sampled_from([0x99, 2**64 - 1]))
datas = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda op, origin, seq, low, system: command(
            origin, seq=seq, window_low=low, system=system, **op
        ).SerializeToString(),
        st.one_of(
            st.just({}),
            st.builds(lambda k: {"put": put(k)}, st.binary(max_size=3)),
            st.builds(
                lambda i, t: {"lease_grant": raft_pb2.LeaseGrant(id=i, ttl_seconds=t)},
                st.integers(-9, 9),
                st.integers(-(2**63), 2**63 - 1),
            ),
            st.builds(
                lambda i, n: {"lease_checkpoint": raft_pb2.LeaseCheckpoint(ids=i, remaining_seconds=n)},
                st.lists(st.integers(0, 3), max_size=3),
                st.lists(st.integers(-2, 9), max_size=3),
            ),
            st.builds(lambda r: {"compact": rpc_pb2.CompactionRequest(revision=r)}, st.integers(-(2**63), 2**63 - 1)),
            st.builds(
                lambda k, i: {
                    "member": raft_pb2.MemberChange(kind=k, member=raft_pb2.MemberInfo(id=i, peer_urls=["x"]))
                },
                st.integers(0, 9),
                ids,
            ),
            st.builds(lambda i: {"claim": raft_pb2.Claim(member_id=i, volume_id=i)}, ids),
            st.builds(
                lambda m, a: {"alarm": rpc_pb2.AlarmRequest(memberID=m, alarm=a, action=rpc_pb2.AlarmRequest.ACTIVATE)},
                numbers,
                st.integers(0, 1),
            ),
        ),
        st.sampled_from([FOLLOWER, OTHER, LEADER, 0x99]),
        numbers,
        numbers,
        st.booleans(),
    ),
)
confs = st.builds(
    lambda a, b, c, d: raft_pb2.ConfState(voters=a, outgoing=b, learners=c, learners_next=d),
    *[st.lists(ids, max_size=3)] * 4,
)
entries = st.builds(
    lambda i, t, d, c: raft_pb2.Entry(index=i, term=t, data=d, conf=c), numbers, numbers, datas, st.none() | confs
)
bodies = st.one_of(
    st.builds(
        lambda i, t, e, c: {"append": raft_pb2.Append(prev_index=i, prev_term=t, entries=e, commit=c)},
        numbers,
        numbers,
        st.lists(entries, max_size=3),
        numbers,
    ),
    st.builds(
        lambda o, i, h, t: {"append_reply": raft_pb2.AppendReply(ok=o, index=i, hint_index=h, hint_term=t)},
        st.booleans(),
        numbers,
        numbers,
        numbers,
    ),
    st.builds(lambda c, r: {"heartbeat": raft_pb2.Heartbeat(commit=c, round=r)}, numbers, numbers),
    st.builds(lambda r: {"heartbeat_reply": raft_pb2.HeartbeatReply(round=r)}, st.integers(0, 2)),
    st.builds(
        lambda i, t, x: {"vote": raft_pb2.Vote(last_index=i, last_term=t, transfer=x)}, numbers, numbers, st.booleans()
    ),
    st.builds(lambda i, t: {"pre_vote": raft_pb2.PreVote(last_index=i, last_term=t)}, numbers, numbers),
    st.builds(lambda c: {"forward": raft_pb2.Forward(commands=c)}, st.lists(datas, max_size=3)),
    st.builds(
        lambda i, n, t: {"renew_reply": raft_pb2.RenewReply(id=i, leases=n, ttls=t)},
        numbers,
        st.lists(st.integers(0, 3)),
        st.lists(st.integers(0, 3)),
    ),
    st.builds(
        lambda i, n, q: {"renew": raft_pb2.Renew(id=i, leases=n, query=q)},
        numbers,
        st.lists(st.integers(-3, 3)),
        st.booleans(),
    ),
    st.builds(lambda i, n: {"read_reply": raft_pb2.ReadReply(id=i, index=n)}, numbers, numbers),
    st.builds(
        lambda i, s, r: {"rejected": raft_pb2.Rejected(incarnation=i, seq=s, reason=r)},
        numbers,
        numbers,
        st.text(max_size=3),
    ),
    st.just({"timeout_now": raft_pb2.TimeoutNow()}),
    st.just({}),
)
messages = st.builds(lambda t, b: PM(term=t, **b), numbers, bodies)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(sent=st.lists(st.tuples(st.sampled_from([LEADER, FOLLOWER]), messages, ids), min_size=1, max_size=4))
def test_nothing_that_a_peer_sends_ends_a_member(sent: list[tuple[int, raft_pb2.PeerMessage, int]]) -> None:
    members = formed()
    for to, wire, frm in sent:
        send(members, to, wire, frm)
        members.settle()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    frames=st.lists(st.tuples(st.lists(datas, min_size=1, max_size=3), st.sampled_from([FOLLOWER, OTHER])), max_size=3)
)
@example(frames=[([REMOVES_THE_LEADER], OTHER)])
def test_whatever_is_forwarded_all_members_apply_it_and_go_on(frames: list[tuple[list[bytes], int]]) -> None:
    members = formed()
    for commands, frm in frames:
        term = members.cores[LEADER].term
        send(members, LEADER, PM(term=term, forward=raft_pb2.Forward(commands=commands)), frm)
    members.settle()
    members.pass_time(4 * SECOND)
    newest = max(members.cores.values(), key=lambda core: core.machine.applied_index)
    stay = [core for core in members.cores.values() if core.id in newest.raft.conf.members()]
    assert stay  # a removed member does not hear of what follows
    assert {core.machine.digest for core in stay} == {newest.machine.digest}


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_an_error_of_decoding(body: bytes) -> None:
    members = formed()
    try:
        frame = raft_pb2.PeerFrame.FromString(body)
    except DecodeError:
        return
    for wire in frame.messages:
        send(members, FOLLOWER, wire, LEADER)


def test_a_new_member_that_took_a_stranger_for_its_leader_takes_the_leader_in_the_end() -> None:
    """A learner never stands, so it held to whoever had said first that it leads, and refused the leader for as long as
    the term lasted."""
    members = formed()
    members.start(4, MemoryStore())
    term = members.cores[LEADER].term
    assert send(members, 4, PM(term=term, heartbeat=raft_pb2.Heartbeat(round=1)), 99) == ""
    beat = PM(term=term, heartbeat=raft_pb2.Heartbeat(round=1))
    assert "in which 63 does" in send(members, 4, beat, LEADER)
    members.now += 2 * members.settings.election_ns
    members.step(4)
    assert send(members, 4, beat, LEADER) == ""
    assert members.cores[4].leader == LEADER
