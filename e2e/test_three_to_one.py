"""From three voters to one, and back: data stays, and no disruption budget keeps a node from being drained."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from e2e.applications import Writer, provide_scripts
from e2e.clusters import Cluster, namespace
from e2e.kubectl import eventually

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with namespace("three-to-one") as name:
        made = Cluster(name)
        made.apply()
        made.wait_ready()
        provide_scripts(name)
        yield made


def _budget(cluster: Cluster) -> str:
    words = ("get", "pdb", "shop-voter", "--ignore-not-found", "-o", "jsonpath={.spec.minAvailable}")
    return cluster.kubectl(*words)


def test_three_to_one_and_back(cluster: Cluster) -> None:
    assert _budget(cluster) == "2"
    writer = Writer("writer", cluster)
    began = time.monotonic()
    cluster.patch({"voters": {"replicas": 1}})
    cluster.wait_ready()
    print(f"   three to one: ready after {time.monotonic() - began:.1f} s")
    eventually("there is no disruption budget", lambda: not _budget(cluster), 15)
    eventually("one volume is left", lambda: set(cluster.claim_uids()) == {"data-shop-voter-0"}, 30)
    assert len(cluster.members()) == 1
    assert cluster.row()["FAULTTOLERANT"] == "False"
    writer.writes_on()
    cluster.patch({"voters": {"replicas": 3}})
    cluster.wait_ready()
    assert _budget(cluster) == "2"
    assert cluster.row()["FAULTTOLERANT"] == "True"
    gap = writer.longest_gap()
    print(f"   {len(writer.stop())} writes acknowledged, none lost; longest gap {gap:.2f} s")
