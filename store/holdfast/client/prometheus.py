"""What is known of a client, as Prometheus metrics. Needs the extra `prometheus`.

    from prometheus_client import REGISTRY
    REGISTRY.register(collector(hf))

Numbers are read when Prometheus asks, and cost nothing else. A registry takes the collector of one client.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(f"{error}: holdfast.client.prometheus needs the extra holdfast[prometheus]") from error

from holdfast.client.blocking import BlockingClient
from holdfast.client.client import Client
from holdfast.client.errors import ClientError
from holdfast.client.picker import Address

MOST = 50  # addresses, and caches: what is beyond is counted together as "others", so that labels are bounded
OTHERS = "others"


def collector(hf: Client | BlockingClient) -> Collector:
    """Metrics of this client. It may be scraped from any thread; of a client that is closed there are none."""
    return _OfClient(hf)


class _OfClient(Collector):
    def __init__(self, hf: Client | BlockingClient) -> None:
        self._hf = hf

    def describe(self) -> Iterable[Metric]:
        return [*_of_addresses({}), *_of_caches([]), *_of_leases(0, False)]

    def collect(self) -> Iterator[Metric]:
        try:
            hf = self._hf.asyncio if isinstance(self._hf, BlockingClient) else self._hf
        except ClientError:
            return
        if hf.connection.closed:
            return
        yield from _of_addresses(dict(hf.metrics()))
        yield from _of_caches(list(hf.connection.caches))
        yield from _of_leases(hf.leases_alive, hf.session_open)


def _of_addresses(known: dict[str, Address]) -> list[Metric]:
    now = time.monotonic()
    calls = CounterMetricFamily("holdfast_client_calls", "Attempts of calls, by address.", labels=["address"])
    failures = CounterMetricFamily(
        "holdfast_client_failures", "Attempts without an answer in time, or without a connection.", labels=["address"]
    )
    outstanding = GaugeMetricFamily("holdfast_client_outstanding", "Calls without an answer yet.", labels=["address"])
    streams = GaugeMetricFamily("holdfast_client_streams", "Open watches.", labels=["address"])
    latency = GaugeMetricFamily(
        "holdfast_client_latency_seconds", "Latency as the choice of addresses sees it.", labels=["address"]
    )
    ejected = GaugeMetricFamily("holdfast_client_ejected", "Addresses that are left out now.", labels=["address"])
    for name, some in _bounded(known):
        calls.add_metric([name], sum(a.calls for a in some))
        failures.add_metric([name], sum(a.failed for a in some))
        outstanding.add_metric([name], sum(a.outstanding for a in some))
        streams.add_metric([name], sum(a.streams for a in some))
        latency.add_metric([name], max(a.latency_now(now) for a in some))
        ejected.add_metric([name], sum(a.ejected_until > now for a in some))
    return [calls, failures, outstanding, streams, latency, ejected]


def _bounded(known: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    names = sorted(known)
    for name in names[:MOST]:
        yield name, [known[name]]
    if names[MOST:]:
        yield OTHERS, [known[name] for name in names[MOST:]]


def _of_caches(caches: list[Any]) -> list[Metric]:
    labels = ["kind", "prefix"]
    revision = GaugeMetricFamily("holdfast_cache_revision", "Revision of the state.", labels=labels)
    age = GaugeMetricFamily("holdfast_cache_age_seconds", "How old the state may be.", labels=labels)
    from_file = GaugeMetricFamily(
        "holdfast_cache_from_file", "1: the last good file, no server has answered.", labels=labels
    )
    size = GaugeMetricFamily("holdfast_cache_keys", "How many keys there are.", labels=labels)
    rejected = GaugeMetricFamily(
        "holdfast_cache_rejected", "Keys whose newest value is not used, because it is not valid.", labels=labels
    )
    several: dict[tuple[str, str], list[Any]] = {}
    for cache in caches:
        label = ("config" if cache.one_key else "cache", cache.prefix.decode(errors="replace"))
        several.setdefault(label, []).append(cache)
    for label in sorted(several)[MOST:]:
        several.setdefault((OTHERS, OTHERS), []).extend(several.pop(label))
    for label, some in several.items():  # of several the worst
        revision.add_metric(label, min(c.revision for c in some))
        age.add_metric(label, max(c.age for c in some))
        from_file.add_metric(label, any(c.from_file for c in some))
        size.add_metric(label, max(len(c) for c in some))
        rejected.add_metric(label, max(len(c.rejected) for c in some))
    return [revision, age, from_file, size, rejected]


def _of_leases(alive: int, session: bool) -> list[Metric]:
    return [
        GaugeMetricFamily("holdfast_client_leases", "Leases that are kept alive.", value=alive),
        GaugeMetricFamily("holdfast_client_session", "1: writes are named by a session.", value=session),
    ]
