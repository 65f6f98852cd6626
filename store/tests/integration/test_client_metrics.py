"""Metrics of a client, from a real server and without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from holdfast import client
from holdfast.client import prometheus
from holdfast.client.picker import Address
from holdfast_lab.processes import LocalCluster
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


def scraped(registry: CollectorRegistry) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by metric and labels, as Prometheus reads them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_a_client_is_measured(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    (address,) = local.endpoints
    registry, file = CollectorRegistry(), tmp_path / "kept"
    try:
        with client.connect_blocking(local.endpoints, timeout=100) as hf:
            registry.register(prometheus.collector(hf))
            with pytest.raises(ValueError, match="Duplicated"):
                registry.register(prometheus.collector(hf))
            assert scraped(registry) == {"holdfast_client_leases": {(): 0}, "holdfast_client_session": {(): 0}}
            hf.put("/m/x", "1")
            hf.get("/m/x")
            lease = hf.lease(60)
            with hf.cache("/m/", file=file) as cache, hf.config("/m/x", int) as config:
                hf.put("/m/x", "no number")
                cache.current()
                while not config.error:
                    pass
                found = scraped(registry)
                assert found["holdfast_client_calls_total"][address,] >= 5
                assert found["holdfast_client_latency_seconds"][address,] > 0
                assert found["holdfast_client_streams"][address,] == 2
                assert found["holdfast_client_ejected"] == {(address,): 0}
                assert found["holdfast_client_leases"] == {(): 1}
                assert found["holdfast_client_session"] == {(): 1}
                assert found["holdfast_cache_revision"]["cache", "/m/"] >= cache.revision - 1
                assert found["holdfast_cache_rejected"] == {("cache", "/m/"): 0, ("config", "/m/x"): 1}
                assert found["holdfast_cache_keys"]["cache", "/m/"] == 1
                assert found["holdfast_cache_from_file"]["cache", "/m/"] == 0
                assert 0 <= found["holdfast_cache_age_seconds"]["cache", "/m/"] < 100
            hf.revoke(lease)
            found = scraped(registry)
            assert "holdfast_cache_revision" not in found, "it is closed"
            assert found["holdfast_client_leases"] == {(): 0}
        assert scraped(registry) == {}, "the client is closed"
        local.kill()
        registry = CollectorRegistry()
        with client.connect_blocking(local.endpoints, timeout=1) as hf, hf.cache("/m/", file=file):
            registry.register(prometheus.collector(hf))
            found = scraped(registry)
            assert found["holdfast_cache_from_file"] == {("cache", "/m/"): 1}
            assert found["holdfast_client_failures_total"][address,] >= 1
    finally:
        local.kill()


async def test_labels_are_bounded() -> None:
    registry = CollectorRegistry()
    async with client.connect("127.0.0.1:1") as hf:
        registry.register(prometheus.collector(hf))
        hf.connection.picker.addresses = {f"10.0.0.{n}:2379": Address(calls=2) for n in range(200)}
        hf.connection.caches |= {Cached(f"/{n}/".encode()) for n in range(200)}
        found = scraped(registry)
        assert len(found["holdfast_client_calls_total"]) == prometheus.MOST + 1
        assert found["holdfast_client_calls_total"]["others",] == 2 * (200 - prometheus.MOST)
        assert len(found["holdfast_cache_age_seconds"]) == prometheus.MOST + 1
        assert found["holdfast_cache_age_seconds"]["others", "others"] == 7
        hf.connection.caches.clear()


class Cached:
    one_key, revision, age, from_file, rejected = False, 5, 7.0, False, ()

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix

    def __len__(self) -> int:
        return 1
