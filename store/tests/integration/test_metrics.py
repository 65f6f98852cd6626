"""docs/metrics.md names every metric that members and replicas serve, and no other."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

from holdfast import client
from holdfast_lab.processes import LocalCluster

from .replica import Edge

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"
WITH_AN_ALARM, WHEN_EXTENSIVE = "etcd_debugging_server_alarms", "grpc_server_handling_seconds"


def served(endpoint: str) -> set[str]:
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as page:
        return set(re.findall(r"^# TYPE (\S+) ", page.read().decode(), re.MULTILINE))


def named() -> dict[str, set[str]]:
    """The metrics in the first columns of the tables, by section."""
    found: dict[str, set[str]] = {}
    for section in DOCS.read_text().split("\n## ")[2:]:
        title, _, rows = section.partition("\n")
        found[title] = {
            name for row in rows.splitlines() for name in re.findall(r"`([a-z_]+)`", row.partition(" | ")[0])
        }
    return found


async def test_the_docs_name_the_metrics(cluster: LocalCluster, edge: Edge) -> None:
    async with client.connect(cluster.endpoints) as hf, client.connect(edge.endpoint) as near:
        written = await hf.put("/a/1", "1")
        await edge.reaches(near, written.revision)
    of_member = await asyncio.to_thread(served, cluster.endpoints[0])
    of_replica = await asyncio.to_thread(served, edge.endpoint)
    docs = named()
    assert of_member | {WITH_AN_ALARM, WHEN_EXTENSIVE} == docs["Members"] | docs["Both"]
    assert of_replica | {WHEN_EXTENSIVE} == docs["Edge replicas"] | docs["Both"]
    assert edge.process is not None
    edge.process.kill()
    await edge.start(["--site=berlin", f"--site-writer={edge.name}={edge.endpoint}"])
    async with client.connect(edge.endpoint) as near:
        await edge.reaches(near, written.revision)
    of_site = await asyncio.to_thread(served, edge.endpoint)
    assert of_site - of_replica == docs["Replicas of a site"]
