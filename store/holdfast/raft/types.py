"""The types between the Raft core and its caller: settings, durable state, and output."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from holdfast.raft.log import Entry
from holdfast.raft.messages import Message


class Random(Protocol):
    def randrange(self, stop: int, /) -> int: ...


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(slots=True)
class HardState:
    """What must survive a crash besides the entries. `commit` is only a hint that saves work after a restart."""

    term: int = 0
    vote: int = 0
    commit: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in nanoseconds, sizes in bytes. An election timeout is drawn from [election, 2 * election).

    `lease_reads`: while a quorum's promises hold, answer linearizable reads without asking it. Must be set the same at
    all members, and is correct only if the rates of any two members' clocks differ by at most
    `max_clock_drift_percent`. When off, only liveness depends on clocks, except where clients cache consistently: there
    the same bound has to hold between a member's clock and a client's (`holdfast.member.cache_leases`).
    """

    election_ns: int = 1_000_000_000
    heartbeat_ns: int = 100_000_000
    max_message_bytes: int = 1 << 20
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 8 << 20
    lease_reads: bool = False
    max_clock_drift_percent: int = 10
    lease_checkpoint_ns: int = 300_000_000_000  # interval between checkpoints of a long lease; 0 = never
    cache_lease_ns: int = 2_000_000_000  # so long a write waits, at most, for a client that caches and is lost

    @property
    def lease_ns(self) -> int:
        """How long, at least, a promise of `election_ns` on another member's clock lasts on our clock."""
        return self.election_ns * 100 // (100 + self.max_clock_drift_percent)


@dataclass(slots=True)
class DurableAppend:
    """One write to the durable log. `base`: the log is reset to begin after this (index, term)."""

    seq: int
    hard_state: HardState | None
    truncate_from: int
    entries: tuple[Entry, ...]
    base: tuple[int, int] | None = None


@dataclass(slots=True)
class Ready:
    append: DurableAppend | None = None
    messages: list[Message] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)  # members that need a snapshot now
    reads: list[tuple[int, int]] = field(default_factory=list)  # (read id, index to wait for)
    reads_lost: list[int] = field(default_factory=list)  # reads not confirmed because leadership ended
