"""What nodes report comes to the cluster, through relays, after cuts and kills; what is older never replaces it."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from holdfast import client
from holdfast.proto import holdfast_pb2
from holdfast_lab.processes import LocalCluster

from .replica import Edge
from .test_relays import process, replica
from .test_restore import holdfast

pytestmark = pytest.mark.timeout(180)


async def reported(hf: client.Client, node: str) -> dict[bytes, bytes]:
    prefix = f"/reported/{node}/"
    found = await hf.range(prefix, prefix=True)
    return {kv.key.removeprefix(prefix.encode()): kv.value for kv in found.kvs}


async def until(hf: client.Client, node: str, wanted: dict[bytes, bytes]) -> None:
    async with asyncio.timeout(40):
        while await reported(hf, node) != wanted:
            await asyncio.sleep(0.1)


async def test_reports_come_to_the_cluster(cluster: LocalCluster, edge: Edge, tmp_path: Path) -> None:
    """From a replica below another one, which is cut off and killed meanwhile."""
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        replica(tmp_path, "leaf", [edge.endpoint]) as leaf,
        client.connect(leaf.endpoint, timeout=20) as at_leaf,
        client.connect(edge.endpoint, timeout=20) as at_edge,
    ):
        await leaf.reaches(at_leaf, (await hf.put("/a/1", "x")).revision)
        await at_leaf.report("a", "1")
        await at_leaf.report("gone", "1")
        await at_edge.report("a", "of the relay")
        await until(hf, "leaf", {b"a": b"1", b"gone": b"1"})
        await until(hf, "berlin", {b"a": b"of the relay"})

        edge.relay.cut()
        await edge.is_cut(at_edge)
        for n in range(20):
            await at_leaf.report("a", f"{n} while cut off")
        holdfast("edge", "report", "gone", "--delete", "--endpoints", leaf.endpoint)
        process(leaf).kill()
        process(leaf).start()
        await at_leaf.report("b/c", "after a start")
        assert await reported(hf, "leaf") == {b"a": b"1", b"gone": b"1"}
        edge.relay.heal()
        await until(hf, "leaf", {b"a": b"19 while cut off", b"b/c": b"after a start"})
        history = (await hf.range("/reported/leaf/a")).kvs[0]
        assert history.version == 2, "what was replaced while it waited is not written"

        with pytest.raises(client.Refused, match="this is a member"):
            await hf.report("a", "x")
        with pytest.raises(client.Refused, match="a report is invalid: the key"):
            await at_leaf.report("a b", "x")


async def test_a_batch_that_comes_late_changes_nothing(cluster: LocalCluster, edge: Edge) -> None:
    def batch(seq: int, **entries: bytes) -> holdfast_pb2.ReportedBatch:
        told = [holdfast_pb2.ReportedEntry(key=key, value=value) for key, value in entries.items()]
        return holdfast_pb2.ReportedBatch(node="n", incarnation=5, seq=seq, entries=told)

    async with client.connect(cluster.endpoints, timeout=20) as hf, client.connect(edge.endpoint, timeout=20) as near:

        async def deliver(at: client.Client, *batches: holdfast_pb2.ReportedBatch) -> None:
            request = holdfast_pb2.DeliverRequest(batches=batches)
            path = "/holdfast.v1.Reported/Deliver"
            await at.connection.call(path, request, holdfast_pb2.DeliverResponse, idempotent=True)

        await edge.reaches(near, (await hf.put("/a/1", "x")).revision)
        await deliver(hf, batch(1, a=b"1"), batch(3, a=b"3", b=b"1"), batch(2, a=b"2"))
        assert await reported(hf, "n") == {b"a": b"3", b"b": b"1"}
        await deliver(hf, batch(2, a=b"2"))
        await deliver(near, batch(3, a=b"another"))
        assert await reported(hf, "n") == {b"a": b"3", b"b": b"1"}
        async with asyncio.TaskGroup() as group:  # they meet, and one is tried again
            for seq in range(4, 12):
                group.create_task(deliver(hf, batch(seq, a=b"%d" % seq)))
        assert await reported(hf, "n") == {b"a": b"11", b"b": b"1"}
        assert [kv.value for kv in (await hf.range("/reported/n")).kvs] == [b"5.11"]


def shown(nth: int, **names: object) -> Callable[[], Awaitable[None]]:
    """A block of Python of the docs about this, as a coroutine function."""
    text = (Path(__file__).parents[3] / "docs" / "edge.md").read_text()
    blocks = re.findall(r"^  ```python\n(.*?)^  ```$", text, re.DOTALL | re.MULTILINE)
    space: dict[str, object] = {"client": client, **names}
    exec(f"async def run():\n{textwrap.indent(textwrap.dedent(blocks[nth]), '    ')}", space)
    run = space["run"]
    assert callable(run)
    return run


async def test_the_example_of_the_docs(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        client.connect(cluster.endpoints, timeout=20) as hf,
        client.connect(cluster.endpoints[0], timeout=20) as at_member,
        replica(tmp_path, "leaf", [cluster.endpoints[0]], ("/shop/",)) as leaf,
        client.connect(leaf.endpoint, timeout=20) as near,
    ):
        look = shown(1, hf=at_member)

        async def sees(state: str) -> None:
            async with asyncio.timeout(40):
                while True:
                    capsys.readouterr()
                    await look()
                    if capsys.readouterr().out == f"leaf {state}\n":
                        return
                    await asyncio.sleep(0.1)

        async def applied(error: str = "") -> None:
            await shown(0, hf=near, use=lambda kvs: error)()

        await hf.put("/shop/a", "1")
        await sees("unknown")
        await applied()
        await sees("in sync")
        await hf.put("/elsewhere", "1")
        await sees("in sync")
        await hf.put("/shop/a", "2")
        await sees("pending")
        await applied("no such unit")
        await sees("failed")
        old = await near.range("/shop/", prefix=True, revision=(await near.range("/shop/a")).kvs[0].mod_revision - 1)
        told = client.Applied((await near.range("/shop/", prefix=True)).position, client.digest(old.kvs))
        await near.report(client.applied_key("/shop/"), bytes(told))
        await sees("drifted")
        await applied()
        await sees("in sync")
        process(leaf).kill()
        async with asyncio.timeout(40):
            while not (await at_member.describe()).replicas[0].offline_since:
                await asyncio.sleep(0.1)
        await sees("in sync")
        await hf.put("/shop/a", "3")
        await sees("unreachable")
