"""The Raft state that every role has, and the output of a turn.

`core.Raft` extends it with the follower's and candidate's part. `leader.Leader` depends on this class alone: it reads
it, advances the commit index, and queues messages in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.raft.conf import Configurations
from holdfast.raft.invariant import InvariantViolation
from holdfast.raft.log import Entry, Log
from holdfast.raft.messages import Message
from holdfast.raft.quorum import ConfState
from holdfast.raft.types import HardState, Settings


class State:
    """Term, log, configuration and commit index of one member, and the output queued for the end of the turn."""

    def __init__(
        self,
        member: int,
        *,
        now: int,
        log: Log,
        conf: ConfState,
        conf_index: int,
        applied: int,
        hard_state: HardState,
        settings: Settings,
    ) -> None:
        self.id = member
        self.now = now
        self.settings = settings
        self.log = log
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.commit = max(min(hard_state.commit, log.last), log.base_index, applied)
        self.confs = Configurations(conf_index, conf, log.since(max(log.first, conf_index + 1)))
        self.digest: tuple[int, int] = (0, 0)  # (applied index, digest), sent along with heartbeats
        self.reads_ready: list[tuple[int, int]] = []
        self._outbox: list[Message] = []
        self._snapshots: list[int] = []

    @property
    def conf(self) -> ConfState:
        return self.confs.current

    @property
    def conf_index(self) -> int:
        return self.confs.index

    def append(self, entries: Sequence[Entry]) -> None:
        """Append entries to the log. A configuration in one is in force from there on."""
        self.log.append(entries)
        self.confs.append(entries)

    def advance_commit(self, index: int) -> None:
        if index > self.commit:
            if index > self.log.last:
                raise InvariantViolation(f"commit {index} beyond the log's end {self.log.last}")
            self.commit = index

    def send(self, message: Message) -> None:
        """Send without waiting for a write: the message depends on nothing that is not durable yet."""
        self._outbox.append(message)

    def needs_snapshot(self, member: int) -> None:
        self._snapshots.append(member)
