"""Checks messages from peers before they are processed: a peer may be broken, of another version, or not a peer at all.

No message may break an invariant here, because that stops this member, and an entry in the log would stop it again at
every start. A message that could is refused as a whole, with the reason, and its connection is ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from holdfast.kv import validate as kv
from holdfast.levels import level_of
from holdfast.machine import FORMAT
from holdfast.member.codec import Malformed
from holdfast.member.messages import MAX_INCARNATION, ReadReply, RenewReply
from holdfast.proto import raft_pb2
from holdfast.raft.log import Log
from holdfast.raft.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    Vote,
)

# Far beyond what a cluster can reach, and far enough below 2^64 that nothing overflows.
MAX_INDEX = MAX_TERM = 1 << 62
MAX_TERM_JUMP = 1 << 32  # one election per second for over a century
# Commands that a member without leadership may propose without a client. Those of the leader are never forwarded.
_FORWARDED_SYSTEM_OPS = ("compact", "alarm")
_LEADERS_OPS = ("lease_checkpoint", "cluster_version")


class View(Protocol):
    """What the checks need to know of this member."""

    @property
    def term(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def commit(self) -> int: ...
    @property
    def log(self) -> Log: ...


# ---- messages --------------------------------------------------------------------------------------------------


def fault(message: Message, view: View) -> str:
    """Why `message` is invalid; empty if it is valid."""
    if message.term >= MAX_TERM or message.term > view.term + MAX_TERM_JUMP:
        return f"term {message.term}, while ours is {view.term}"
    check = _CHECKS.get(type(message))
    return check(message, view) if check is not None else ""


def _append(m: Append, view: View) -> str:
    if why := _leader(m, view):
        return why
    if m.prev_index >= MAX_INDEX or m.commit >= MAX_INDEX or m.prev_term > m.term:
        return f"entries after {m.prev_index}@{m.prev_term}, commit {m.commit}, in term {m.term}"
    index, term = m.prev_index, m.prev_term
    for entry in m.entries:
        index += 1
        if entry.index != index:
            return f"entry {entry.index} in the place of {index}"
        if not term <= entry.term <= m.term:
            return f"entry {index} of term {entry.term} after one of {term}, in term {m.term}"
        term = entry.term
        if entry.data:
            try:
                entry.decoded, _ = decoded(entry.data)
            except Malformed as malformed:
                return f"entry {index}: {malformed}"
    return _rewritten(m, view)


def _rewritten(m: Append, view: View) -> str:
    """Why the message is invalid if it would replace entries that are committed here."""
    log = view.log
    if m.term < view.term:
        return ""  # a late message of a deposed leader: Raft ignores it anyway
    if m.prev_index >= view.commit or log.term(m.prev_index) != m.prev_term:
        return ""
    for entry in m.entries[: view.commit - m.prev_index]:
        here = log.term(entry.index)
        if here is not None and here != entry.term:
            return f"entry {entry.index} of term {entry.term}: one of term {here} is committed here"
    return ""


def _leader(m: Append | Heartbeat, view: View) -> str:
    if m.term == view.term and view.leader not in (0, m.frm):
        return f"says that it leads in term {m.term}, in which {view.leader:x} does"
    return ""


def _heartbeat(m: Heartbeat, view: View) -> str:
    if m.term == view.term and m.commit > view.log.last:
        return (
            f"commit {m.commit}, while our log ends at {view.log.last}. What a leader says was acknowledged, so this "
            "member's directory is an older copy or was cut; remove this member, empty its volume, and add it again"
        )
    if m.commit >= MAX_INDEX or m.round >= MAX_INDEX or m.digest_index >= MAX_INDEX:
        return f"commit {m.commit}, round {m.round}, digest of {m.digest_index}"
    return _leader(m, view)


def acknowledged(message: Message, view: View) -> int:
    """The index up to which this member, according to its leader, acknowledged entries that it does not have. 0: it has
    everything that it acknowledged."""
    if not isinstance(message, Heartbeat) or message.term != view.term or view.leader not in (0, message.frm):
        return 0
    return message.commit if view.log.last < message.commit < MAX_INDEX else 0


def _append_reply(m: AppendReply, view: View) -> str:
    if m.index >= MAX_INDEX or m.hint_index >= MAX_INDEX or m.hint_term >= MAX_TERM:
        return f"index {m.index}, hint {m.hint_index}@{m.hint_term}"
    if m.ok and view.is_leader and m.term == view.term and m.index > view.log.last:
        return f"has entries up to {m.index}, while its leader's log ends at {view.log.last}"
    return ""


def _vote(m: Vote | PreVote, view: View) -> str:
    if m.last_index >= MAX_INDEX or m.last_term > m.term:  # equal is valid: a founded log begins with term 1
        return f"asks for a vote in term {m.term} with a log that ends at {m.last_index}@{m.last_term}"
    return ""


def _heartbeat_reply(m: HeartbeatReply, view: View) -> str:
    return f"round {m.round}" if m.round >= MAX_INDEX else ""


def _read_reply(m: ReadReply, view: View) -> str:
    return f"reads after index {m.index}" if m.index >= MAX_INDEX else ""


def _renew_reply(m: RenewReply, view: View) -> str:
    return "" if len(m.leases) == len(m.ttls) else f"{len(m.ttls)} times for {len(m.leases)} leases"


_CHECKS: dict[type[Message], Callable[[Any, View], str]] = {
    Append: _append,
    AppendReply: _append_reply,
    Heartbeat: _heartbeat,
    HeartbeatReply: _heartbeat_reply,
    Vote: _vote,
    PreVote: _vote,
    ReadReply: _read_reply,
    RenewReply: _renew_reply,
}


# ---- commands --------------------------------------------------------------------------------------------------


def decoded(data: bytes) -> tuple[raft_pb2.Command, str]:
    """The command in an entry, and its kind. Raises Malformed if it cannot be applied."""
    try:
        command = raft_pb2.Command.FromString(data)
    except DecodeError as error:
        raise Malformed("not a command") from error
    if not 0 < command.format <= FORMAT:
        raise Malformed(f"a command of format {command.format}; this program knows 1 to {FORMAT}")
    kind = command.WhichOneof("op")
    if kind is None:
        raise Malformed("a command without an operation, or with one that this program does not know")
    if kind == "auth" and command.auth.WhichOneof("op") is None:
        raise Malformed("a change of users or roles that this program does not know")
    if kind == "lease_checkpoint":
        left = command.lease_checkpoint.remaining_seconds
        if len(left) != len(command.lease_checkpoint.ids) or (left and min(left) < 0):
            raise Malformed("a checkpoint of leases that does not say what is left of each")
    if kind == "cluster_version" and level_of(command.cluster_version.version) is None:
        raise Malformed(f"a cluster version {command.cluster_version.version!r}, which this program does not know")
    if command.incarnation >= MAX_INCARNATION:
        raise Malformed(f"a command of start {command.incarnation} of a member")
    if command.wall_ms < 0:
        raise Malformed(f"a command of the time {command.wall_ms} ms")
    return command, kind


def forwarded(data: bytes, frm: int) -> tuple[raft_pb2.Command, str]:
    """A command that `frm` forwarded to the leader. Raises Malformed if it is not its own, or must not be forwarded."""
    command, kind = decoded(data)
    if command.origin != frm:
        raise Malformed(f"a command of {command.origin:x}, forwarded by {frm:x}")
    if kind in _LEADERS_OPS or (command.system and kind not in _FORWARDED_SYSTEM_OPS):
        raise Malformed(f"a forwarded command of the kind {kind}, on nobody's behalf")
    return command, kind


def check_request(command: raft_pb2.Command, kind: str) -> None:
    """The same checks as the services make of their clients' requests, except limits that are configured per member.
    Raises RequestError."""
    if kind == "put":
        kv.check_put(command.put)
    elif kind == "put_sequential":
        kv.check_put_sequential(command.put_sequential)
    elif kind == "delete_range":
        kv.check_delete(command.delete_range)
    elif kind == "txn":
        kv.check_txn(command.txn, sys.maxsize)
