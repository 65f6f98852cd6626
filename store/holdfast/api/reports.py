"""What a server knows of the replicas below it: the last report of each, also of those that have stopped following.

A name is in one of these states:

- it follows this server: a stream of its own has reported;
- it follows another replica that does so: it is in the report of that stream, without `offline_since`;
- it is offline: whoever it followed lists it so, or the stream that told of it has ended, or is silent;
- it is not known.

A name that follows is not offline, whatever else is told of it: so a replica that has moved is listed once. When the
stream of a relay ends, nothing is known of those below it; they are offline too, until they report elsewhere. All of
it is in memory: a server that was started anew knows who reports from then on.

A replica sends something once a second. Where the network is cut, the kernel keeps its connection for a minute; a
stream that is silent for longer than a replica would bear from its upstream tells nothing of now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from holdfast.proto import holdfast_pb2

MAX_REPORTS = 5000  # listed together; the replicas that were offline for longest are left out first
SILENT_MS = 15_000  # since the last message of a stream


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Reports:
    """`above`: volume ids of the servers that this one follows, which are not offline to whoever follows them."""

    def __init__(self, above: Callable[[], Iterable[int]] = tuple, now_ms: Callable[[], int] = _now_ms) -> None:
        self._above = above
        self._now_ms = now_ms
        self._by_stream: dict[int, holdfast_pb2.ReplicaReport] = {}
        self._heard: dict[int, int] = {}  # the same streams: when the last message came
        self._offline: dict[str, holdfast_pb2.ReplicaReport] = {}  # by name; of streams that have ended

    def put(self, stream: int, report: holdfast_pb2.ReplicaReport) -> None:
        """The report of a replica that follows this server, with those of the replicas below it."""
        self._by_stream.pop(stream, None)  # the newest last: it wins if a name occurs twice
        del report.below[MAX_REPORTS:]
        now = self._now_ms()
        report.offline_since = 0
        self._offline.pop(report.replica, None)
        for below in report.below:
            del below.below[:]
            if below.offline_since:
                below.offline_since = min(below.offline_since, now)  # clocks differ
            else:
                self._offline.pop(below.replica, None)
        self._by_stream[stream] = report
        self._heard[stream] = now

    def heard(self, stream: int) -> None:
        """A message has come in the stream."""
        if stream in self._heard:
            self._heard[stream] = self._now_ms()

    def _silent_since(self, stream: int) -> int:
        """When the last message came in a stream that is silent; 0: it is not."""
        heard = self._heard[stream]
        return heard if self._now_ms() > heard + SILENT_MS else 0

    def gone(self, stream: int) -> None:
        """The stream has ended."""
        if stream not in self._by_stream:
            return
        since = self._silent_since(stream) or self._now_ms()
        for each in _offline(self._by_stream.pop(stream), since):
            _keep_newest(self._offline, each)
        del self._heard[stream]
        if len(self._offline) > 2 * MAX_REPORTS:  # not each time: it costs what all of them cost
            self._offline = {r.replica: r for r in _by_age(self._offline)[-MAX_REPORTS:]}

    def all(self) -> list[holdfast_pb2.ReplicaReport]:
        """One report for each name, at most MAX_REPORTS: those that are offline, the latest last, then those that
        follow. Last are those that follow this server itself: whatever one of them tells, none pushes out another."""
        following: dict[str, holdfast_pb2.ReplicaReport] = {}
        here: dict[str, holdfast_pb2.ReplicaReport] = {}
        offline = dict(self._offline)
        for stream, report in self._by_stream.items():
            if since := self._silent_since(stream):
                for each in _offline(report, since):
                    _keep_newest(offline, each)
                continue
            for below in report.below:
                if below.offline_since:
                    _keep_newest(offline, below)
                else:
                    following[below.replica] = below
            here[report.replica] = _alone(report)
        further = [report for name, report in following.items() if name not in here]
        above = set(self._above())
        known = following.keys() | here.keys()
        left = [r for r in _by_age(offline) if r.replica not in known and r.volume_id not in above]
        return [*left, *further, *here.values()][-MAX_REPORTS:]


def _offline(report: holdfast_pb2.ReplicaReport, since: int) -> Iterator[holdfast_pb2.ReplicaReport]:
    """What is known of these replicas once their stream tells nothing any more."""
    for each in (*report.below, report):
        alone = _alone(each, copy=True)
        alone.offline_since = each.offline_since or since
        yield alone


def _keep_newest(offline: dict[str, holdfast_pb2.ReplicaReport], report: holdfast_pb2.ReplicaReport) -> None:
    known = offline.get(report.replica)
    if known is None or known.offline_since <= report.offline_since:
        offline[report.replica] = report


def _by_age(offline: dict[str, holdfast_pb2.ReplicaReport]) -> list[holdfast_pb2.ReplicaReport]:
    """Who is offline for longest first."""
    return sorted(offline.values(), key=lambda report: report.offline_since)


def _alone(report: holdfast_pb2.ReplicaReport, *, copy: bool = False) -> holdfast_pb2.ReplicaReport:
    """The report without those of the replicas below."""
    if not (report.below or copy):
        return report
    alone = holdfast_pb2.ReplicaReport()
    alone.CopyFrom(report)
    alone.ClearField("below")
    return alone
