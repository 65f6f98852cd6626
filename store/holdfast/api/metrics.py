"""Prometheus metrics: etcd's names, so that its dashboards and alerts work, and additional ones of holdfast.

Nothing is computed before a scrape: counters are plain numbers kept where things happen, and become metrics when the
page is read.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from holdfast.api.memory import Waiting, memory
from holdfast.front.calls import Kind
from holdfast.histogram import Histogram
from holdfast.proto import rpc_pb2

if TYPE_CHECKING:
    from holdfast.api.base import Limits
    from holdfast.api.edge import EdgeService
    from holdfast.api.health import Health
    from holdfast.api.maintenance import MaintenanceService
    from holdfast.api.router import Router
    from holdfast.api.versions import Versions
    from holdfast.member.driver import Member
    from holdfast.member.node import Node

_KINDS = {Kind.UNARY: "unary", Kind.SERVER_STREAM: "server_stream", Kind.BIDI: "bidi_stream"}


class Metrics:
    """The metrics page: the metrics that `collect` returns, and those of the process."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(collect))
        ProcessCollector(registry=self._registry)

    def text(self) -> str:
        return generate_latest(self._registry).decode()


class _Collector:
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        return []


def gauges(values: dict[str, float]) -> Iterator[Metric]:
    """Metrics from plain numbers by name; names that end in _total are counters."""
    for name, value in values.items():
        if name.endswith("_total"):
            yield CounterMetricFamily(name, name, value=value)
        else:
            yield GaugeMetricFamily(name, name, value=value)


def labelled(name: str, labels: dict[str, str], value: float = 1.0) -> Metric:
    metric = GaugeMetricFamily(name, name, labels=list(labels))
    metric.add_metric(list(labels.values()), value)
    return metric


def _histogram(name: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, name, buckets=_buckets(histogram), sum_value=histogram.sum)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    return [("+Inf" if bound == float("inf") else repr(bound), float(n)) for bound, n in histogram.cumulative()]


class Traffic(Waiting, Protocol):
    """Bytes received from and sent to clients, as counted by a front."""

    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects that keep a member's counters."""

    node: Node
    versions: Versions
    limits: Limits
    router: Router
    edge: EdgeService
    maintenance: MaintenanceService
    health: Health
    front: Traffic


def server_metrics(router: Router, front: Traffic) -> Iterator[Metric]:
    """What members and replicas have in common."""
    yield from _grpc(router)
    yield from _process()
    yield from gauges(
        {
            "etcd_network_client_grpc_received_bytes_total": front.received_bytes,
            "etcd_network_client_grpc_sent_bytes_total": front.sent_bytes,
        }
    )


def member_metrics(of: Sources) -> Iterator[Metric]:
    """All metrics of one member."""
    node, versions, limits, edge = of.node, of.versions, of.limits, of.edge
    yield from server_metrics(of.router, of.front)
    yield from gauges(
        {
            "etcd_network_active_peers": node.transport.active_peers,
            "etcd_server_health_success_total": of.health.well,
            "etcd_server_health_failures_total": of.health.unwell,
        }
    )
    checks = GaugeMetricFamily(
        "etcd_server_healthcheck", "of /livez and /readyz, as last asked", labels=["type", "name"]
    )
    for (kind, name), well in of.health.checks.items():
        checks.add_metric([kind, name], float(well))
    yield checks
    yield _histogram("etcd_disk_backend_defrag_duration_seconds", of.maintenance.defrags)
    yield _histogram("etcd_disk_backend_snapshot_duration_seconds", of.maintenance.snapshots)
    yield labelled("etcd_server_version", {"server_version": versions.server})
    yield labelled("etcd_cluster_version", {"cluster_version": versions.cluster})
    member = node.member
    if member is None:
        yield from gauges({"etcd_server_has_leader": 0.0})
        return
    yield labelled("etcd_server_id", {"server_id": f"{member.id:x}"})
    yield labelled("holdfast_cluster_version", {"cluster_version": member.state.cluster_version})
    for id, alarm in sorted(member.state.alarms):
        labels = {"server_id": f"{id:x}", "alarm_type": rpc_pb2.AlarmType.Name(alarm)}
        yield labelled("etcd_debugging_server_alarms", labels)
    yield from gauges(_plain(member, limits, edge))
    yield from memory(member.store, member.raft.log.bytes, of.front)
    for name, histogram in member.timings().items():
        yield _histogram(name, histogram)
    round_trips = HistogramMetricFamily(
        "etcd_network_peer_round_trip_time_seconds", "as the kernel has it, at each reading of this page", labels=["To"]
    )
    for peer, histogram in sorted(node.transport.round_trips().items()):
        round_trips.add_metric([f"{peer:x}"], buckets=_buckets(histogram), sum_value=histogram.sum)
    yield round_trips
    for name, counts in node.transport.counts().items():
        metric = CounterMetricFamily(name, name, labels=["To" if "sent" in name else "From"])
        for peer, count in sorted(counts.items()):
            metric.add_metric([f"{peer:x}"], count)
        yield metric


def _plain(member: Member, limits: Limits, edge: EdgeService) -> dict[str, float]:
    core, raft, state = member.core, member.raft, member.state
    size, live = member.store.size()
    counts = state.counts
    return {
        "etcd_server_has_leader": float(raft.leader != 0),
        "etcd_server_is_leader": float(raft.is_leader),
        "etcd_server_is_learner": float(member.is_learner),
        "etcd_server_leader_changes_seen_total": core.leader_changes,
        "etcd_server_proposals_committed_total": raft.commit,
        "etcd_server_proposals_applied_total": state.applied_index,
        "etcd_server_proposals_pending": core.pending,
        "etcd_server_proposals_failed_total": core.failed_proposals,
        "etcd_server_quota_backend_bytes": limits.quota_bytes,
        "etcd_server_slow_apply_total": member.slow_turns,
        # etcd counts a read that is not confirmed in time as slow, and one that could not be sent as failed. Here a
        # read that cannot be sent also waits until it times out, so both counts are the same.
        "etcd_server_slow_read_indexes_total": core.reads.failed,
        "etcd_server_read_indexes_failed_total": core.reads.failed,
        "etcd_mvcc_db_total_size_in_bytes": size,
        "etcd_mvcc_db_total_size_in_use_in_bytes": min(live, size),
        "etcd_mvcc_put_total": counts["put"] + counts["put_sequential"],
        "etcd_mvcc_delete_total": counts["delete_range"],
        "etcd_mvcc_txn_total": counts["txn"],
        "etcd_mvcc_range_total": member.ranges,
        "etcd_debugging_mvcc_keys_total": len(state.space.live),
        "etcd_debugging_mvcc_current_revision": state.space.revision,
        "etcd_debugging_mvcc_compact_revision": state.space.compacted,
        "etcd_debugging_mvcc_watcher_total": member.hub.watchers,
        "etcd_debugging_mvcc_watch_stream_total": member.hub.streams,
        "etcd_debugging_mvcc_slow_watcher_total": member.hub.behind,
        "etcd_debugging_mvcc_events_total": member.hub.events,
        "etcd_debugging_mvcc_pending_events_total": member.hub.behind,
        "etcd_debugging_lease_granted_total": counts["lease_grant"],
        "etcd_debugging_lease_revoked_total": counts["lease_revoke"],
        "etcd_debugging_lease_renewed_total": core.lessor.clock.renewed,
        "holdfast_log_entries": raft.log.last - raft.log.base_index,
        "holdfast_state_scrubbed_bytes": member.patrol.read_bytes,
        "holdfast_state_scrub_rounds": member.patrol.rounds,
        "holdfast_cachable_prefixes": len(state.cachable),
        "holdfast_cache_holders": core.cache_holders,
        "holdfast_cache_invalidations_total": core.caches.invalidations,
        "holdfast_cache_waiting_commands_total": core.caches.waited,
        "holdfast_cache_leases_run_out_total": core.caches.ran_out,
        "holdfast_replicas_following": len(edge.follow.streams),
    }


def _grpc(router: Router) -> Iterator[Metric]:
    started = CounterMetricFamily("grpc_server_started", "calls begun", labels=_CALL)
    received = CounterMetricFamily("grpc_server_msg_received", "messages from clients", labels=_CALL)
    sent = CounterMetricFamily("grpc_server_msg_sent", "messages to clients", labels=_CALL)
    handled = CounterMetricFamily("grpc_server_handled", "calls ended", labels=[*_CALL, "grpc_code"])
    handling = HistogramMetricFamily("grpc_server_handling_seconds", "how long calls took", labels=_CALL)
    for path, counts in router.counts.items():
        service, _, method = path[1:].rpartition("/")
        labels = [_KINDS[router.kinds.get(path, Kind.UNARY)], service, method]
        started.add_metric(labels, counts.started)
        received.add_metric(labels, counts.received)
        sent.add_metric(labels, counts.sent)
        if counts.handling is not None:
            handling.add_metric(labels, buckets=_buckets(counts.handling), sum_value=counts.handling.sum)
        for code, count in counts.handled.items():
            handled.add_metric([*labels, code], count)
    yield from (started, received, sent, handled)
    if any(counts.handling for counts in router.counts.values()):
        yield handling
    clients = CounterMetricFamily(
        "etcd_server_client_requests", "calls by the client's version", labels=["type", "client_api_version"]
    )
    for (kind, version), count in router.client_versions.items():
        clients.add_metric([_KINDS[kind], version], count)
    yield clients


_CALL = ["grpc_type", "grpc_service", "grpc_method"]


def _process() -> Iterator[Metric]:
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError:
        return
    yield from gauges({"os_fd_used": used, "os_fd_limit": float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])})
