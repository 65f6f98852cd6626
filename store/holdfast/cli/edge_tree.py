"""The tree of edge replicas, put together from what servers say of themselves and of those below them. It does no I/O.

Each server lists the replicas whose reports it has. One that has moved may be listed by several servers: a report of a
replica that follows goes before one of a replica that is offline, and the newest goes before others. Reports come from
other programs: the tree has each name once, and ends, whatever they say of who follows whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from holdfast.proto import holdfast_pb2

MAX_DEPTH = 32  # drawn below each other; 8 replicas may be in a row
_STATES = {0: "empty", 1: "formed", 2: "member", 3: "removed"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. `branch`: what is drawn before the name. `lag`: revisions behind the cluster; None: not known."""

    kind: str  # cluster, member, replica, elsewhere
    name: str
    cluster: int
    branch: str = ""
    state: str = ""
    pool: str = ""
    volume_id: int = 0
    upstream: int = 0  # volume id
    epoch: int = 0
    watermark: int = 0  # 0: it has no data yet
    lag: int | None = None
    bound_seconds: int = 0  # 0: not known
    offline_since: int = 0  # Unix ms
    filter_version: int = 0
    site: str = ""
    site_writer: str = ""
    site_follows: bool | None = None  # None: it is of no site, or it is not known


def tree(nodes: Iterable[holdfast_pb2.DescribeResponse]) -> list[Entry]:
    """The lines of the tree: for each cluster its members, then the replicas that were asked themselves and follow none
    of the others, each with those below it; at the end those of whose upstream nothing is known."""
    by_cluster: dict[int, dict[int, holdfast_pb2.DescribeResponse]] = {}
    for node in nodes:
        by_cluster.setdefault(node.cluster_id, {})[node.volume_id] = node  # a server may have several addresses
    return [entry for _, found in sorted(by_cluster.items()) for entry in _Cluster(list(found.values())).lines()]


def merged(nodes: Iterable[holdfast_pb2.DescribeResponse]) -> dict[str, holdfast_pb2.ReplicaReport]:
    """What is known of each replica, by its name."""
    known: dict[str, holdfast_pb2.ReplicaReport] = {}
    for node in nodes:
        for report in node.replicas:
            other = known.get(report.replica)
            if other is None or _newness(report) > _newness(other):
                known[report.replica] = report
    return known


def _newness(report: holdfast_pb2.ReplicaReport) -> tuple[bool, int, int, int]:
    return not report.offline_since, report.offline_since, report.epoch, report.watermark


class _Cluster:
    """The servers and replicas of one cluster."""

    def __init__(self, nodes: Sequence[holdfast_pb2.DescribeResponse]) -> None:
        self._id = nodes[0].cluster_id
        self._epoch = max(node.epoch for node in nodes)
        self._revision = max(node.revision for node in nodes)
        reports = merged(nodes)
        members = [node for node in nodes if node.state != node.REPLICA]
        asked = [self._asked(node, reports.pop(node.name, None)) for node in nodes if node.state == node.REPLICA]
        replicas = [*asked, *(self._replica(report) for report in reports.values())]
        known = {node.volume_id for node in members} | {each.volume_id for each in replicas} - {0}
        tops = [r for r in asked if r.upstream not in known]
        self._tops = [*_by_name(map(self._member, members)), *_by_name(tops)]
        self._below: dict[int, list[Entry]] = {}  # not drawn yet, by upstream
        for each in _by_name(r for r in replicas if r not in tops):
            self._below.setdefault(each.upstream if each.upstream in known else 0, []).append(each)

    def lines(self) -> Iterator[Entry]:
        yield Entry(
            "cluster", f"{self._id:x}" if self._id else "unknown", self._id, epoch=self._epoch, watermark=self._revision
        )
        unknown = self._below.pop(0, [])
        yield from self._drawn(self._tops)
        if unknown or self._below:
            yield Entry("elsewhere", "elsewhere", self._id)
            yield from self._drawn(unknown)
        while self._below:  # they follow each other, or are too many in a row
            yield from self._drawn(self._below.pop(next(iter(self._below))))

    def _drawn(self, tops: list[Entry]) -> Iterator[Entry]:
        """These, each with those below it. What is drawn is taken out of `_below`."""
        stack = [(entry, "", 1, entry is tops[-1]) for entry in reversed(tops)]
        while stack:
            entry, indent, depth, last = stack.pop()
            yield replace(entry, branch=indent + ("└─ " if last else "├─ "))
            below = self._below.pop(entry.volume_id, []) if depth < MAX_DEPTH else []
            indent += "   " if last else "│  "
            stack += [(each, indent, depth + 1, each is below[-1]) for each in reversed(below)]

    def _member(self, node: holdfast_pb2.DescribeResponse) -> Entry:
        leads = node.leader and node.leader == node.member_id
        return Entry(
            "member",
            node.name,
            self._id,
            state="leader" if leads else _STATES.get(node.state, "?"),
            volume_id=node.volume_id,
            epoch=node.epoch,
            watermark=node.revision,
            lag=self._lag(node.epoch, node.revision),
        )

    def _replica(self, report: holdfast_pb2.ReplicaReport) -> Entry:
        return Entry(
            "replica",
            report.replica,
            self._id,
            state="offline" if report.offline_since else "online",
            pool=report.pool,
            volume_id=report.volume_id,
            upstream=report.upstream,
            epoch=report.epoch,
            watermark=report.watermark,
            lag=self._lag(report.epoch, report.watermark),
            bound_seconds=0 if report.offline_since else report.bound_seconds,  # of then, not of now
            offline_since=report.offline_since,
            filter_version=report.filter_version,
            site=report.site.site,
            site_writer=report.site.writer,
            site_follows=report.site.follows if report.HasField("site") and not report.offline_since else None,
        )

    def _asked(self, node: holdfast_pb2.DescribeResponse, report: holdfast_pb2.ReplicaReport | None) -> Entry:
        """A replica that was asked itself: it knows best how it is. `report`: what others say of it."""
        entry = self._replica(report if report is not None else holdfast_pb2.ReplicaReport(replica=node.name))
        above = node.path.nodes[1] if len(node.path.nodes) > 1 else entry.upstream
        return replace(
            entry,
            state="online" if node.connected else "disconnected",
            volume_id=node.volume_id,
            upstream=above,
            epoch=node.epoch,
            watermark=node.revision,
            lag=self._lag(node.epoch, node.revision),
            bound_seconds=-(-node.staleness_ms // 1000) if node.HasField("staleness_ms") else 0,
            offline_since=0 if node.connected else entry.offline_since,
            site=node.site.site,
            site_writer=node.site.writer,
            site_follows=node.site.follows if node.HasField("site") else None,
        )

    def _lag(self, epoch: int, watermark: int) -> int | None:
        """Revisions of different epochs cannot be compared."""
        return max(0, self._revision - watermark) if watermark and epoch == self._epoch else None


def _by_name(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.name)
