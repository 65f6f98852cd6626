"""The status of a HoldfastEdgePool, from what this pass found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.kube import Object
from holdfast_operator.model.pool import PoolSpec, SiteKeys
from holdfast_operator.plan.freshness import Peak, Report, judged
from holdfast_operator.plan.pool import Replica
from holdfast_operator.resources.pool import replica_on


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass found of one pool."""

    wanted: Sequence[str]  # pods
    shared: bool  # they belong to one StatefulSet
    relays: frozenset[str]  # of the pods, those that are to be relays
    replicas: Sequence[Replica]
    reports: Mapping[str, Report] | None  # of the wanted pods; None: no member answers
    peaks: Mapping[str, Peak]
    now: float  # Unix seconds

    @property
    def settling(self) -> bool:
        """Whether a replica that is ready is not known to follow with all of its data, and of a known age. It has just
        been started or connected, as a rule, and no event tells when members know more of it."""
        if self.reports is None:
            return False
        found = [self.reports.get(r.name) for r in self.replicas if r.ready and r.reachable and r.name in self.wanted]
        return any(r is None or not (r.online and r.whole and r.bound) for r in found)


def reports_of(
    pool: str, wanted: Sequence[str], listed: Sequence[holdfast_pb2.ReplicaReport] | None
) -> dict[str, Report] | None:
    """What the members report of the wanted pods of this pool."""
    if listed is None:
        return None
    names = frozenset(wanted)
    return {
        report.replica: Report(report.watermark > 0, report.bound_seconds, report.offline_since / 1000)
        for report in listed
        if report.pool == pool and report.replica in names
    }


def pool_status(pool: Object, spec: PoolSpec, seen: Seen, refused: str) -> Object:
    """`refused`: why the next replica is not replaced now."""
    wanted = len(seen.wanted)
    online = None if seen.reports is None else [report for report in seen.reports.values() if report.online]
    ready = sum(replica.ready for replica in seen.replicas)
    outdated = sum(replica.outdated for replica in seen.replicas)
    good = 0 < wanted == ready and not outdated
    troubles = [*([refused] if refused else []), *(f"{r.name}: {r.trouble}" for r in seen.replicas if r.trouble)]
    follow = "no member says how many follow" if online is None else f"{len(online)} follow the cluster"
    message = "; ".join([f"{ready} of {wanted} replicas are ready, {follow}", *troubles])
    reason = "AllReady" if good else "RollingOut" if outdated else "NotReady"
    if wanted == 0:
        reason, message = "NoNodes", "no node has the labels of placement.nodeSelector"
    return {
        "replicas": wanted,
        "online": None if online is None else len(online),
        "offline": None if online is None else wanted - len(online),
        "synced": None if online is None else sum(report.whole for report in online),
        "worstBoundSeconds": max((peak.bound for peak in seen.peaks.values()), default=None),
        "summary": f"{ready}/{wanted}",
        "conditions": [
            *status.ready(pool, good, reason, message, progressing=not good and wanted > 0, stalled=False),
            status.condition(pool, "Available", 0 < wanted == ready, reason, message),
            *([_relays(pool, seen)] if spec.relaysPerSite else []),
            *([_site_writer(pool, seen, spec.site)] if spec.site is not None else []),
            *([_fresh(pool, seen, spec.stalenessTargetSeconds)] if spec.stalenessTargetSeconds else []),
        ],
    }


def _relays(pool: Object, seen: Seen) -> Object:
    if seen.shared:
        why = (
            "relaysPerSite has no effect: this pool has one StatefulSet for all nodes, as an operator of 0.1 made it, "
            "and its replicas cannot differ; make a new pool in its place"
        )
        return status.condition(pool, "Relays", False, "OneStatefulSet", why)
    there = sorted(r.name for r in seen.replicas if r.name in seen.relays and r.ready and not r.outdated)
    good = 0 < len(there) == len(seen.relays)
    message = f"{len(there)} of {len(seen.relays)} relays are ready{': ' if there else ''}{', '.join(there)}"
    return status.condition(pool, "Relays", good, "AllReady" if good else "NotReady", message)


def _site_writer(pool: Object, seen: Seen, site: SiteKeys) -> Object:
    """Whether somebody writes the keys of the site."""
    if seen.shared:
        why = (
            "site has no effect: this pool has one StatefulSet for all nodes, as an operator of 0.1 made it, and its "
            "replicas cannot differ; make a new pool in its place"
        )
        return status.condition(pool, "SiteWriter", False, "OneStatefulSet", why)
    writer = f"{replica_on(pool['metadata']['name'], site.writer)}-0"
    if writer not in seen.wanted:
        why = f"site.writer: no node {site.writer} has the labels of placement.nodeSelector, so nothing can be written"
        return status.condition(pool, "SiteWriter", False, "NoSuchNode", why)
    good = any(r.ready and not r.outdated for r in seen.replicas if r.name == writer)
    message = f"{writer}, on the node {site.writer}, writes the keys of the site {site.name}"
    return status.condition(
        pool, "SiteWriter", good, "Ready" if good else "NotReady", message if good else f"{message}, and is not ready"
    )


def _fresh(pool: Object, seen: Seen, target: int) -> Object:
    if not seen.wanted:
        return status.condition(pool, "Fresh", None, "NoNodes", "there is no replica")
    if seen.reports is None:
        return status.condition(pool, "Fresh", None, "NoAnswer", "no member answers the operator")
    found = judged(sorted(seen.wanted), seen.reports, seen.peaks, target, seen.now)
    return status.condition(pool, "Fresh", found.fresh, found.reason, found.message)
