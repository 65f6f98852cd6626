"""What programs at the edge have reported about a configuration, at a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from holdfast import client
from holdfast.client import Applied, Position, SyncState
from holdfast.proto import holdfast_pb2
from holdfast_lab.processes import LocalCluster
from holdfast_operator.config_sync import sync


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        yield local
    finally:
        local.kill()


def report(replica: str, offline_since: int = 0) -> holdfast_pb2.ReplicaReport:
    return holdfast_pb2.ReplicaReport(replica=replica, pool="shops", offline_since=offline_since)


async def test_nodes_are_counted_by_what_their_programs_report(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints) as hf:
        await hf.put("/shop/a", "before")
        old = client.Applied(hf.position, client.digest((await hf.range("/shop/", prefix=True)).kvs))
        revision = (await hf.put("/shop/a", "now")).revision
        now = client.digest((await hf.range("/shop/", prefix=True)).kvs)
        at = Position(hf.position.cluster_id, revision)
        told = {
            "uses-it": Applied(at, now),
            "cannot": Applied(at, old.digest, "no such flag: x"),
            "drifted": Applied(at, old.digest),
            "pending": old,
            "offline": old,
        }
        for replica, applied in told.items():
            await hf.put(f"/reported/{replica}/{client.applied_key('/shop/')}", bytes(applied))
        await hf.put(f"/reported/broken/{client.applied_key('/shop/')}", "no such report")
        reports = [report(replica, int(replica == "offline")) for replica in (*told, "broken", "silent")]
        found = await sync(hf, "/shop/", reports, revision)
        assert found.states == {
            "uses-it": SyncState.IN_SYNC,
            "cannot": SyncState.FAILED,
            "drifted": SyncState.DRIFTED,
            "pending": SyncState.PENDING,
            "offline": SyncState.UNREACHABLE,
        }
        assert found.reason == "Failed"
        assert found.message == (
            "1 of 5 nodes that report use the data (cannot: no such flag: x; drifted: drifted; offline: unreachable; "
            "and 1 more)"
        )


async def test_nothing_is_said_where_nobody_reports_and_of_many_nodes_all_are_read(cluster: LocalCluster) -> None:
    async with client.connect(cluster.endpoints) as hf:
        revision = (await hf.put("/shop/a", "now")).revision
        many = [report(f"node-{number}") for number in range(250)]
        assert not (await sync(hf, "/shop/", many, revision)).states
        now = Applied(hf.position, client.digest((await hf.range("/shop/", prefix=True)).kvs))
        for each in many:
            await hf.put(f"/reported/{each.replica}/{client.applied_key('/shop/')}", bytes(now))
        found = await sync(hf, "/shop/", many, revision)
        assert found.reason == "InSync"
        assert found.message == "250 of 250 nodes that report use the data"
