"""The record of a call while it is served: for metrics, for cancellation, and to report where its time went."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from holdfast.api.stream import Stream
from holdfast.front.calls import Call
from holdfast.histogram import CALLS, Histogram


class MethodCounts:
    """Counts of a method's calls, messages and outcomes (by Go's names of the status codes)."""

    __slots__ = ("handled", "handling", "received", "sent", "started")

    def __init__(self, *, timed: bool = False) -> None:
        self.handling = Histogram(CALLS) if timed else None
        self.started = 0
        self.received = 0
        self.sent = 0
        self.handled: Counter[str] = Counter()


class CallRecord:
    """One call. `stream` is None for a unary call."""

    __slots__ = ("began_ns", "call", "cancel", "counts", "marks", "name", "request_bytes", "stream")

    def __init__(self, call: Call, counts: MethodCounts, request_bytes: int = 0) -> None:
        self.call = call
        self.counts = counts
        self.began_ns = time.monotonic_ns()
        self.request_bytes = request_bytes
        self.stream: Stream | None = None
        self.cancel: Callable[[], object] | None = None
        self.marks: list[tuple[str, int]] = []  # steps reached, with monotonic ns
        self.name = ""  # of its proposal in the log: the same on every member

    def mark(self, what: str) -> None:
        """Record that the call has reached the step `what`."""
        self.marks.append((what, time.monotonic_ns()))

    def took(self, ended_ns: int) -> str:
        """Human-readable text on where the time of the call went."""
        parts, at = [], self.began_ns
        for what, reached in self.marks:
            parts.append(f"{(reached - at) / 1e6:.1f} ms until {what}")
            at = reached
        parts.append(f"{(ended_ns - at) / 1e6:.1f} ms until answered")
        return ", ".join(parts)
