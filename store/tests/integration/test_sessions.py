"""Writes that are done once, and changes of the membership, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from holdfast import client
from holdfast.client.session import Session
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster

Change = holdfast_pb2.MembershipChangeRequest


async def test_writes_through_killed_members_are_done_once_and_have_an_answer(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    stop, written = asyncio.Event(), 0

    async def write(hf: client.Client, number: int) -> None:
        nonlocal written
        count = 0
        while not stop.is_set():
            count += 1
            await hf.put(f"/w/{number}/{count}", "x")  # raises if the outcome is unknown
            written += 1

    async with client.connect(cluster.endpoints, timeout=30.0) as hf:
        writers = [asyncio.ensure_future(write(hf, n)) for n in range(8)]
        for _ in range(4):
            victim = await cluster.leader()
            victim.kill()
            before = written
            while written < before + 50:
                for task in writers:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)
            victim.start()
            await cluster.wait_ready()
        stop.set()
        await asyncio.gather(*writers)
        found = await hf.range("/w/", prefix=True)
    assert found.count == written
    assert {kv.version for kv in found.kvs} == {1}, "a write was done twice"


async def test_the_first_answer_comes_again_through_another_member(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    request = rpc_pb2.PutRequest(key=b"k", value=b"first")
    path = "/etcdserverpb.KV/Put"
    async with client.connect(cluster.endpoints, timeout=20.0) as hf:
        connection = hf.connection
        session = Session(connection, 30)
        async with session.name() as name:
            one, other = cluster.endpoints[:2]
            first = await connection.call(path, request, rpc_pb2.PutResponse, idempotent=False, endpoint=one, name=name)
            await hf.put("k", "other")
            again = await connection.call(
                path, request, rpc_pb2.PutResponse, idempotent=False, endpoint=other, name=name
            )
        assert again.header.revision == first.header.revision
        kept = await hf.get("k")
        assert kept is not None
        assert kept.value == b"other"
        await session.end()
        async with session.name() as fresh:
            assert fresh is not None
            assert name is not None
            assert fresh[0] != name[0]
        # The old session is over: its name does nothing any more.
        with pytest.raises(client.Refused, match="has ended"):
            await connection.call(path, request, rpc_pb2.PutResponse, idempotent=False, name=name)
        await session.end()


async def test_a_client_without_a_session_can_still_delete_when_the_data_has_reached_its_limit(
    cluster: LocalCluster,
) -> None:
    await cluster.wait_ready()
    async with client.connect(cluster.endpoints, timeout=20.0) as hf:
        await hf.put("k", "v")
        raised = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.ACTIVATE, memberID=(await hf.status()).header.member_id, alarm=rpc_pb2.NOSPACE
        )
        path = "/etcdserverpb.Maintenance/Alarm"
        await hf.connection.call(path, raised, rpc_pb2.AlarmResponse, idempotent=True)
    async with client.connect(cluster.endpoints, timeout=20.0) as hf:  # has no session yet
        with pytest.raises(client.Refused, match="space exceeded"):
            await hf.put("k", "w")
        assert (await hf.delete("k")).deleted == 1


async def test_a_name_that_is_none_is_refused(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    request = rpc_pb2.PutRequest(key=b"k")
    async with client.connect(cluster.endpoints, timeout=20.0) as hf:
        for name in (
            (("holdfast-session", "7"),),
            (("holdfast-session", "x"), ("holdfast-seq", "1"), ("holdfast-low", "1")),
            (("holdfast-session", "7"), ("holdfast-seq", "1"), ("holdfast-low", "2")),
        ):
            with pytest.raises(client.Refused, match="holdfast") as refused:
                await hf.connection.call(
                    "/etcdserverpb.KV/Put", request, rpc_pb2.PutResponse, idempotent=False, name=name
                )
            assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert await hf.get("k") is None


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three voters of a cluster that may have two learners."""
    local = LocalCluster(tmp_path, extra=["--max-learners=2"])
    local.start()
    try:
        yield local
    finally:
        local.kill()
        print(local.logs())


async def test_members_are_demoted_promoted_and_changed_together(roomy: LocalCluster) -> None:
    await roomy.wait_ready()
    async with client.connect(roomy.endpoints, timeout=20.0) as hf:

        async def members() -> dict[str, rpc_pb2.Member]:
            return {m.name: m for m in await hf.members()}

        async def change(kind: int, name: str, *more: tuple[int, str]) -> int:
            known = await members()
            now = await hf.membership()
            request = Change(kind=kind, member_id=known[name].ID, expected_config_index=now.config_index)  # type: ignore[arg-type]
            for other_kind, other in more:
                request.together.add(kind=other_kind, member_id=known[other].ID)
            return await hf.change_membership(request)

        await change(Change.DEMOTE, "m3")
        assert [m.isLearner for m in (await members()).values()].count(True) == 1
        assert (await members())["m3"].isLearner
        await hf.put("/with/two", "x")
        # One step: m3 votes again, m2 does not any more.
        await change(Change.PROMOTE, "m3", (Change.DEMOTE, "m2"))
        now = await members()
        assert (now["m2"].isLearner, now["m3"].isLearner) == (True, False)
        with pytest.raises(client.Refused, match="can only demote a voting member"):
            await change(Change.DEMOTE, "m2")
        await change(Change.PROMOTE, "m2")
        # The leader removes itself: another member leads, and the old leader is not a member any more.
        leader = await roomy.leader()
        await change(Change.REMOVE, leader.name)
        await hf.put("/without/it", "x")
        assert leader.name not in await members()
