"""The inputs and the output of a member's core: its whole interface to a driver, real or simulated."""

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
    """`command` has its operation set; the core fills in its name and time."""

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
    """Renew a lease, or with `query` ask how much time it has left."""

    id: int
    lease: int
    query: bool
    deadline_ns: int


@dataclass(slots=True)
class HoldCache:
    """A client's message about its cache lease, see CacheHoldRequest. `id` is that of the stream."""

    id: int
    key: bytes
    range_end: bytes
    number: int
    acknowledged: int


@dataclass(slots=True)
class ReleaseCache:
    """The stream of a cache lease has ended. `done`: its client had said that it does not use its copy any more.
    `excused`: the server ended it, so that the client could not say so."""

    id: int
    done: bool
    excused: bool = False


@dataclass(slots=True)
class Cancel:
    """The caller does not wait for this answer any more. A proposal may still be applied."""

    id: int


@dataclass(slots=True)
class Appended:
    seq: int


@dataclass(slots=True)
class Flushed:
    """The state up to this index is durable, so the log may be compacted; `Output.forget` says how far."""

    index: int


@dataclass(slots=True)
class CountedOn:
    """The new incarnation of this running member: see `Output.later_start`."""

    incarnation: int


@dataclass(slots=True)
class SnapshotOffered:
    """A snapshot from the leader is complete and durable beside the state in use."""

    index: int
    index_term: int
    frm: int
    term: int
    open: Callable[[], Store]  # replaces the state in use by it


@dataclass(slots=True)
class SnapshotSent:
    member: int
    ok: bool


@dataclass(slots=True)
class Transfer:
    to: int  # 0 means the best successor


@dataclass(slots=True)
class Campaign:
    """Stand for election now: there is no other voter to wait for."""


@dataclass(slots=True)
class PeerLost:
    """This member closed or refused the connection. A hint that it is gone, never a proof."""

    member: int


@dataclass(slots=True)
class DiskFull:
    """Whether the disk has no room for entries beyond those being written."""

    full: bool


Input = (
    PeerMessage
    | Propose
    | Read
    | KeepAlive
    | HoldCache
    | ReleaseCache
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
    """To a Propose: the response without header, and the revision after it. To a Read: the revision. To a KeepAlive:
    the TTL in seconds."""

    id: int
    error: Refusal | None = None
    response: Proto | None = None
    revision: int = 0
    ttl: int = 0
    seq: int = 0  # of a proposal: the number in its name


@dataclass(slots=True)
class CacheGiven:
    """To a HoldCache: a lease that counts from the sending of request `number` (0: none), or an invalidation, see
    CacheHoldResponse. `refused`: the stream ends, and with it the lease."""

    id: int
    number: int = 0
    lease_ms: int = 0
    revision: int = 0
    invalidations: int = 0
    refused: Refusal | None = None


@dataclass(slots=True)
class Output:
    append: DurableAppend | None = None
    messages: list[Message] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    caches: list[CacheGiven] = field(default_factory=list)  # in order
    applied: list[tuple[int, int, int]] = field(default_factory=list)  # names of the commands that were applied
    changes: list[list[Change]] = field(default_factory=list)  # one list per revision, in order
    snapshots: list[int] = field(default_factory=list)  # members to send a snapshot to
    refused: list[tuple[int, str]] = field(default_factory=list)  # members that sent an invalid message, and why
    forget: int = 0  # the durable log may drop entries up to this one; 0 = no more than before
    later_start: int = 0  # a higher incarnation whose proposal was applied: choose one above it; 0 = none
    installed: bool = False  # a snapshot replaced the state
    conf_changed: bool = False  # members, their attributes or the configuration changed
    more: bool = False  # committed entries wait to be applied: call again soon
