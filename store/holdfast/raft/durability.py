"""Tracks writes until they are durable, and holds back messages that must not be sent before that.

States of an entry: in the log; handed out in a numbered write; durable. Invariants: `stable` never exceeds what the
newest completed write covers of the log *as it is now* (a write does not make entries durable that were truncated
after it was handed out: "async append ABA"); a held message leaves only when every write up to its own is durable.
"""

from __future__ import annotations

from collections import deque

from holdfast.raft.invariant import invariant
from holdfast.raft.log import Log
from holdfast.raft.messages import Message
from holdfast.raft.types import DurableAppend, HardState


class Durability:
    """One member's writes under way. `next_write` makes a write; `completed` is told when it is on disk."""

    def __init__(self, last: int, hard: HardState) -> None:
        self.stable = last  # entries up to here are durable
        self._unsaved = last + 1  # first entry not yet handed out for writing
        self._saved = hard
        self._seq = 0
        self._done = 0
        self._in_flight: deque[list[int]] = deque()  # [seq, last index that write made durable]
        self._gated: deque[tuple[int, Message]] = deque()
        self._held: list[Message] = []  # messages of this turn, not yet assigned to a write
        self._truncate_from = 0
        self._base: tuple[int, int] | None = None

    def hold(self, message: Message) -> None:
        """Send `message` once everything that this turn writes is durable (thesis section 3.8)."""
        self._held.append(message)

    @property
    def next_seq(self) -> int:
        """The number of the write that the next `next_write` makes, if it makes one."""
        return self._seq + 1

    def truncated(self, start: int) -> None:
        """The log lost its entries from `start` on."""
        if start < self._unsaved:  # some of these may be on disk or under way
            self._truncate_from = min(self._truncate_from or start, start)
            self._unsaved = start
        self.stable = min(self.stable, start - 1)
        for write in self._in_flight:
            write[1] = min(write[1], start - 1)

    def restarted(self, index: int, term: int) -> None:
        """The log was reset to begin after (index, term), which is durable in the state."""
        self.stable = index
        self._in_flight.clear()
        self._truncate_from = 0
        self._unsaved = index + 1
        self._base = (index, term)

    def completed(self, seq: int) -> list[Message]:
        """Everything up to write `seq` is durable. Returns the messages that may be sent now."""
        invariant(self._done <= seq <= self._seq, f"write {seq} reported durable, {self._seq} was the last one given")
        self._done = seq
        while self._in_flight and self._in_flight[0][0] <= seq:
            self.stable = max(self.stable, self._in_flight.popleft()[1])
        free: list[Message] = []
        while self._gated and self._gated[0][0] <= seq:
            free.append(self._gated.popleft()[1])
        return free

    def next_write(self, log: Log, hard: HardState) -> DurableAppend | None:
        """The write that makes this turn's changes durable, or None without changes. A changed commit index alone makes
        no write; the next write includes it."""
        last, saved = log.last, self._saved
        if (
            self._unsaved > last
            and not self._truncate_from
            and self._base is None
            and hard.term == saved.term
            and hard.vote == saved.vote
        ):
            return None
        self._seq += 1
        entries = tuple(log.since(self._unsaved)) if self._unsaved <= last else ()
        append = DurableAppend(self._seq, hard, self._truncate_from, entries, self._base)
        self._saved = hard
        self._truncate_from = 0
        self._unsaved = last + 1
        self._base = None
        self._in_flight.append([self._seq, last])
        return append

    def release(self) -> list[Message]:
        """This turn's held messages, if there is no write to wait for. Call after `next_write`."""
        if not self._held:
            return []
        held, self._held = self._held, []
        if self._seq == self._done:
            return held
        self._gated.extend((self._seq, message) for message in held)
        return []
