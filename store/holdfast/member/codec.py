"""Converts core messages and log entries to and from protobuf, for the wire and the log file."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.machine.members import encode_conf
from holdfast.member.messages import Forward, ReadReply, ReadRequest, Rejected, Renew, RenewReply
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from holdfast.raft.quorum import ConfState

MAX_CONF_MEMBERS = 1000


class Malformed(Exception):
    """No working member can have sent this. The text says what is wrong with it."""


def decode_conf(conf: raft_pb2.ConfState) -> ConfState:
    """Raises Malformed."""
    if why := conf_fault(conf):
        raise Malformed(f"its configuration: {why}")
    return ConfState(tuple(conf.voters), tuple(conf.outgoing), tuple(conf.learners), tuple(conf.learners_next))


def conf_fault(conf: raft_pb2.ConfState) -> str:
    """Why `conf` is not a valid configuration; empty if it is."""
    groups = (conf.voters, conf.outgoing, conf.learners, conf.learners_next)
    for group in groups:
        if len(group) > MAX_CONF_MEMBERS or list(group) != sorted(set(group)) or 0 in group:
            return "the ids are not sorted, not unique, zero or too many"
    voters, outgoing, learners, demoted = map(set, groups)
    if not voters:
        return "no member is a voter"
    if (voters | outgoing) & learners or voters & demoted or not demoted <= outgoing:
        return "one member is a voter and a learner at once"
    return ""


def encode_entry(entry: Entry) -> raft_pb2.Entry:
    return raft_pb2.Entry(
        index=entry.index,
        term=entry.term,
        data=entry.data,
        conf=None if entry.conf is None else encode_conf(entry.conf),
    )


def decode_entries(entries: Iterable[raft_pb2.Entry]) -> list[Entry]:
    return [Entry(e.index, e.term, e.data, decode_conf(e.conf) if e.HasField("conf") else None) for e in entries]


def encode(message: Message) -> raft_pb2.PeerMessage:
    """The wire form. Sender and receiver are not in it, because they are exchanged once per connection."""
    m = message
    wire = raft_pb2.PeerMessage(term=m.term)
    if isinstance(m, Append):
        body = wire.append
        body.prev_index, body.prev_term, body.commit = m.prev_index, m.prev_term, m.commit
        body.entries.extend(encode_entry(e) for e in m.entries)
    elif isinstance(m, AppendReply):
        reply = wire.append_reply
        reply.ok, reply.index, reply.hint_index, reply.hint_term = m.ok, m.index, m.hint_index, m.hint_term
    elif isinstance(m, Heartbeat):
        beat = wire.heartbeat
        beat.commit, beat.round, beat.digest_index, beat.digest = m.commit, m.round, m.digest_index, m.digest
    elif isinstance(m, HeartbeatReply):
        answer = wire.heartbeat_reply
        answer.round, answer.promise, answer.level = m.round, m.promise, m.level
    elif isinstance(m, Forward):
        wire.forward.commands.extend(m.commands)
    elif isinstance(m, ReadRequest):
        wire.read_request.id = m.id
    elif isinstance(m, ReadReply):
        wire.read_reply.id, wire.read_reply.index = m.id, m.index
    elif isinstance(m, PreVote):
        wire.pre_vote.last_index, wire.pre_vote.last_term = m.last_index, m.last_term
    elif isinstance(m, Vote):
        vote = wire.vote
        vote.last_index, vote.last_term, vote.transfer = m.last_index, m.last_term, m.transfer
    elif isinstance(m, Rejected):
        rejected = wire.rejected
        rejected.incarnation, rejected.seq, rejected.reason = m.incarnation, m.seq, m.reason
    elif isinstance(m, Renew):
        wire.renew.CopyFrom(raft_pb2.Renew(id=m.id, leases=m.leases, query=m.query))
    elif isinstance(m, RenewReply):
        wire.renew_reply.CopyFrom(raft_pb2.RenewReply(id=m.id, leases=m.leases, ttls=m.ttls))
    elif isinstance(m, PreVoteReply):
        wire.pre_vote_reply.granted = m.granted
        wire.pre_vote_reply.SetInParent()
    elif isinstance(m, VoteReply):
        wire.vote_reply.granted = m.granted
        wire.vote_reply.SetInParent()
    elif isinstance(m, TimeoutNow):
        wire.timeout_now.SetInParent()
    else:
        raise AssertionError(f"no wire form for {type(m).__name__}")
    return wire


def decode(wire: raft_pb2.PeerMessage, to: int, frm: int) -> Message | None:
    """The message, or None for a kind that this program does not know (a newer peer's). Raises Malformed."""
    term = wire.term
    kind = wire.WhichOneof("body")
    if kind == "append":
        a = wire.append
        return Append(to, frm, term, a.prev_index, a.prev_term, decode_entries(a.entries), a.commit)
    if kind == "append_reply":
        r = wire.append_reply
        return AppendReply(to, frm, term, r.ok, r.index, r.hint_index, r.hint_term)
    if kind == "heartbeat":
        h = wire.heartbeat
        return Heartbeat(to, frm, term, h.commit, h.round, h.digest_index, h.digest)
    if kind == "heartbeat_reply":
        answer = wire.heartbeat_reply
        return HeartbeatReply(to, frm, term, answer.round, answer.promise, answer.level)
    if kind == "forward":
        return Forward(to, frm, term, list(wire.forward.commands))
    if kind == "read_request":
        return ReadRequest(to, frm, term, wire.read_request.id)
    if kind == "read_reply":
        return ReadReply(to, frm, term, wire.read_reply.id, wire.read_reply.index)
    if kind == "pre_vote":
        return PreVote(to, frm, term, wire.pre_vote.last_index, wire.pre_vote.last_term)
    if kind == "pre_vote_reply":
        return PreVoteReply(to, frm, term, wire.pre_vote_reply.granted)
    if kind == "vote":
        v = wire.vote
        return Vote(to, frm, term, v.last_index, v.last_term, v.transfer)
    if kind == "vote_reply":
        return VoteReply(to, frm, term, wire.vote_reply.granted)
    if kind == "timeout_now":
        return TimeoutNow(to, frm, term)
    if kind == "rejected":
        j = wire.rejected
        return Rejected(to, frm, term, j.incarnation, j.seq, j.reason)
    if kind == "renew":
        return Renew(to, frm, term, wire.renew.id, list(wire.renew.leases), wire.renew.query)
    if kind == "renew_reply":
        rr = wire.renew_reply
        return RenewReply(to, frm, term, rr.id, list(rr.leases), list(rr.ttls))
    return None
