"""What goes into a member's core and what comes out of it: all that a driver, real or simulated, has to do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message as Proto

from holdfast.kv.rows import Change
from holdfast.kv.store import Store
from holdfast.proto import raft_pb2
from holdfast.raft.messages import Message
from holdfast.raft.types import DurableAppend
from holdfast.status import Refusal

# ---- inputs ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class PeerMessage:
    message: Message


@dataclass(slots=True)
class Propose:
    """`command` has its operation set; who proposes it and when is filled in here."""

    id: int
    command: raft_pb2.Command
    deadline_ns: int


@dataclass(slots=True)
class Read:
    """A linearizable read: answered once everything acknowledged before is applied here."""

    id: int
    deadline_ns: int


@dataclass(slots=True)
class KeepAlive:
    """Renew a lease, or with `query` ask how long it has."""

    id: int
    lease: int
    query: bool
    deadline_ns: int


@dataclass(slots=True)
class Cancel:
    """Nobody waits for this answer any more. What was proposed may still happen."""

    id: int


@dataclass(slots=True)
class Appended:
    seq: int


@dataclass(slots=True)
class Flushed:
    """The state up to this index survives a crash, so the log may forget it: `Output.forget` says how much of it."""

    index: int


@dataclass(slots=True)
class CountedOn:
    """This start has this number from now on: see `Output.later_start`."""

    incarnation: int


@dataclass(slots=True)
class SnapshotOffered:
    """A snapshot from the leader is complete and durable beside the state in use."""

    index: int
    index_term: int
    frm: int
    term: int
    open: Callable[[], Store]  # put it in the place of the state in use


@dataclass(slots=True)
class SnapshotSent:
    member: int
    ok: bool


@dataclass(slots=True)
class Transfer:
    to: int  # 0: to whoever has the most


@dataclass(slots=True)
class Campaign:
    """Nobody else is there to wait for: stand for election now."""


@dataclass(slots=True)
class PeerLost:
    """The connection to this member was closed by it, or refused. A hint that it is gone, never a proof."""

    member: int


@dataclass(slots=True)
class DiskFull:
    """Whether there is no room for more entries than are on their way."""

    full: bool


Input = (
    PeerMessage
    | Propose
    | Read
    | KeepAlive
    | Cancel
    | Appended
    | Flushed
    | CountedOn
    | SnapshotOffered
    | SnapshotSent
    | Transfer
    | Campaign
    | PeerLost
    | DiskFull
)


# ---- output ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """To a Propose: the response without header and the revision it left. To a Read: nothing more. To a KeepAlive:
    `ttl`."""

    id: int
    error: Refusal | None = None
    response: Proto | None = None
    revision: int = 0
    ttl: int = 0
    seq: int = 0  # of a proposal: the last part of its name in the log


@dataclass(slots=True)
class Output:
    append: DurableAppend | None = None
    messages: list[Message] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    applied: list[tuple[int, int, int]] = field(default_factory=list)  # names of the commands that were: see Answer.seq
    changes: list[list[Change]] = field(default_factory=list)  # one list a revision, in order
    snapshots: list[int] = field(default_factory=list)  # members to send a snapshot to
    refused: list[tuple[int, str]] = field(default_factory=list)  # members that sent what cannot be taken, and why
    forget: int = 0  # the durable log may let go of entries up to this one; 0: of no more than before
    later_start: int = 0  # the number of a later start of this member that has proposed something: count on from it
    installed: bool = False  # a snapshot replaced the state
    conf_changed: bool = False  # members, their addresses or the configuration
    more: bool = False  # committed entries wait: call again soon
