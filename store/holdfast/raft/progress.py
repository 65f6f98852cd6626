"""What a leader knows of one member's log, and how much it may send ahead.

Every mode can be left as long as the member answers heartbeats, so every reachable member catches up. "Compacted" means
that the entry before `next`, which an append has to name, is not in the leader's log any more.

| Event                  | PROBE                   | REPLICATE                        | SNAPSHOT                       |
|------------------------|-------------------------|----------------------------------|--------------------------------|
| append acknowledged    | REPLICATE, or go on     | `match` moves, the window opens  | REPLICATE if the log has what  |
|                        | probing if compacted    |                                  | follows, else stay             |
| append refused         | probe at the hint       | PROBE at `match` + 1             | stay                           |
| nothing comes back     | stay, one probe is out  | stay; the window fills           | stay; the transfer ends by its |
|                        |                         |                                  | own time limit                 |
| heartbeat answered     | the probe is sent again | not all acknowledged: an empty   | stay                           |
|                        |                         | append; if compacted: PROBE      |                                |
| connection ended       | stay                    | PROBE at `match` + 1, paused     | stay                           |
| compacted              | SNAPSHOT at next send   | SNAPSHOT at next send; if the    | stay; the log is kept for it,  |
|                        |                         | window is full: see "heartbeat   | up to a limit of bytes         |
|                        |                         | answered"                        |                                |
| transfer succeeded     | stay                    | stay                             | PROBE after the log's base     |
| transfer failed        | stay                    | stay                             | PROBE, paused until the next   |
|                        |                         |                                  | heartbeat is answered          |

A member may restart without the leader noticing: what it acknowledged is durable, so `match` stays valid.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from holdfast.raft.invariant import invariant


class Mode(Enum):
    PROBE = "probe"  # one message at a time until the logs are known to match
    REPLICATE = "replicate"  # optimistic: `next` runs ahead of `match`
    SNAPSHOT = "snapshot"  # the entries it needs are compacted; a snapshot is being sent


class Progress:
    """Invariant: 0 <= match < next; everything up to `match` is durable in the member's copy of *our* log."""

    __slots__ = ("_bytes", "_inflight", "heard_at", "match", "max_bytes", "max_messages", "mode", "next", "paused")

    def __init__(self, next_index: int, heard_at: int, *, max_messages: int = 256, max_bytes: int = 8 << 20) -> None:
        self.match = 0
        self.next = next_index
        self.mode = Mode.PROBE
        self.paused = False  # in PROBE: a probe is out and not yet answered
        self.heard_at = heard_at  # when it last answered
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self._inflight: deque[tuple[int, int]] = deque()  # (last index, bytes) of each message under way
        self._bytes = 0

    def may_send(self) -> bool:
        if self.mode is Mode.REPLICATE:
            return len(self._inflight) < self.max_messages and self._bytes < self.max_bytes
        return self.mode is Mode.PROBE and not self.paused

    def sent(self, last_index: int, size: int) -> None:
        """A message with entries up to `last_index` (or none, if that is next - 1) is sent."""
        if self.mode is Mode.REPLICATE:
            if last_index >= self.next:
                self._inflight.append((last_index, size))
                self._bytes += size
                self.next = last_index + 1
        else:
            self.paused = True

    def matched(self, index: int) -> bool:
        """The member has everything up to `index`. Returns whether `match` advanced."""
        while self._inflight and self._inflight[0][0] <= index:
            self._bytes -= self._inflight.popleft()[1]
        news = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)
        return news

    def probe(self, next_index: int) -> None:
        invariant(next_index > self.match, f"probing at {next_index} below match {self.match}")
        self._become(Mode.PROBE)
        self.next = next_index

    def replicate(self) -> None:
        self._become(Mode.REPLICATE)
        self.next = self.match + 1

    def snapshot(self) -> None:
        self._become(Mode.SNAPSHOT)

    def _become(self, mode: Mode) -> None:
        self.mode = mode
        self.paused = False
        self._inflight.clear()
        self._bytes = 0
