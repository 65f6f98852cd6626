"""Automatic compaction by the leader: keeps the revisions of a period of time, or a number of revisions.

As in etcd: by time, once per retention period but at least every hour, to the revision of one retention period ago; by
number, every five minutes.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.status import COMPACTED

log = logging.getLogger("holdfast.compactor")

BY_NUMBER_SECONDS = 300.0
SAMPLES = 10  # of the revision, per retention period or hour


@dataclass(frozen=True, slots=True)
class Retention:
    """How much history to keep: `seconds` of it, or `revisions`; both 0 = all."""

    seconds: float = 0.0
    revisions: int = 0

    @property
    def interval(self) -> float:
        """Seconds between two calls of `look`."""
        return min(self.seconds, 3600.0) / SAMPLES if self.seconds else BY_NUMBER_SECONDS


class Compactor:
    """Call `look` every `retention.interval` seconds."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._seen: deque[int] = deque()  # revisions of the last period, oldest first
        self._looks = 0

    def look(self, member: Member) -> None:
        target = self._target(member.revision)
        if not member.core.is_leader:
            return
        if target <= max(member.state.space.compacted, 1):
            return

        def answered(answer: Answer) -> None:
            if answer.error is None:
                log.info("compacted to revision %d", target)
            elif answer.error is not COMPACTED:
                log.warning("could not compact to revision %d: %s", target, answer.error)

        compact = rpc_pb2.CompactionRequest(revision=target)
        member.propose(raft_pb2.Command(compact=compact, system=True), answered)

    def _target(self, revision: int) -> int:
        """The revision to compact to now; 0 = not now."""
        if self._retention.revisions:
            return revision - self._retention.revisions
        self._seen.append(revision)
        period = round(self._retention.seconds / self._retention.interval)
        while len(self._seen) > period + 1:
            self._seen.popleft()
        self._looks += 1
        return self._seen[0] if len(self._seen) > period and self._looks % SAMPLES == 0 else 0
