"""Members of the version before and of this one in one cluster, as while it is upgraded: real processes of both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from holdfast import client
from holdfast.client.session import Session
from holdfast.proto import rpc_pb2

from .users import PASSWORDS, enable, set_up
from .versions import (
    NEW,
    OLD,
    MixedCluster,
    Traffic,
    agree,
    answers,
    cluster_version,
    lead,
    metrics,
    reaches_version,
    unpacked,
)

ROOT = ("root", PASSWORDS["root"])
KEYS = 200
PUT = "/etcdserverpb.KV/Put"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("old") / "program")


@pytest.fixture
def mixed(tmp_path: Path, program: Path) -> Iterator[MixedCluster]:
    """Three voters of the old program, started."""
    local = MixedCluster(tmp_path, program)
    local.start()
    yield local
    local.kill()
    print(local.logs())


async def ask(hf: client.Client, method: str, request: Message) -> Any:
    """A call of the Cluster service."""
    response: type[Message] = getattr(rpc_pb2, f"Member{method}Response")
    return await hf.connection.call(f"/etcdserverpb.Cluster/Member{method}", request, response, idempotent=True)


@pytest.mark.timeout(180)
async def test_a_cluster_is_upgraded_member_by_member_while_it_serves(mixed: MixedCluster) -> None:
    """With users, leases and kept answers: nothing acknowledged is lost, no watch has a gap, and the version of the
    cluster rises with the last member."""
    await set_up(mixed)
    async with client.connect(mixed.endpoints, timeout=20) as hf:
        await enable(hf)

    def connect() -> client.Client:
        return client.connect(mixed.endpoints, timeout=30, user=ROOT[0], password=ROOT[1])

    request = rpc_pb2.PutRequest(key=b"/kept", value=b"first")
    async with connect() as hf, connect() as busy:
        for n in range(KEYS):
            await hf.put(f"/k/{n:03d}", str(n))
        leases = [await hf.lease(20) for _ in range(3)]
        for lease in leases:
            await hf.put(f"/leased/{lease.id}", "x", lease=lease)
        session = Session(hf.connection, 60)
        async with session.name() as name:
            first = await hf.connection.call(PUT, request, rpc_pb2.PutResponse, idempotent=False, name=name)
        traffic = Traffic(busy)
        async with traffic.running():
            for process, killed in zip(mixed.voters.values(), (False, True, False), strict=True):
                await traffic.some_more()
                if killed:
                    process.kill()
                else:
                    assert process.stop() == 0
                await traffic.some_more()
                up = [p for p in mixed.voters.values() if p.running is not None]
                for other in up:
                    # Whichever program leads, and through whichever member it is asked: the first answer comes again.
                    again = await hf.connection.call(
                        PUT, request, rpc_pb2.PutResponse, idempotent=False, name=name, endpoint=other.endpoint
                    )
                    assert again.header.revision == first.header.revision
                await reaches_version([p for p in up if not mixed.is_old(p)], OLD)
                mixed.upgrade(process).start()
                await answers(process, ROOT)
            await reaches_version(mixed.voters.values(), NEW)
            await traffic.some_more()
        assert 'holdfast_cluster_version{cluster_version="0.2.0"} 1.0' in metrics(mixed.voters["m1"])
        # Whose answer that was, the old program has not noted: with users, it is given to nobody.
        with pytest.raises(client.Refused, match="not kept any more"):
            await hf.connection.call(PUT, request, rpc_pb2.PutResponse, idempotent=False, name=name)
        found = await hf.range("/k/", prefix=True)
        assert {kv.key: kv.value for kv in found.kvs} == {b"/k/%03d" % n: b"%d" % n for n in range(KEYS)}
        assert {kv.version for kv in found.kvs} == {1}
        assert all(lease.alive for lease in leases)
        assert (await hf.range("/leased/", prefix=True)).count == len(leases)
        await leases[0].revoke()
        assert (await hf.range("/leased/", prefix=True)).count == len(leases) - 1
        await session.end()
    async with client.connect(mixed.endpoints, timeout=20, user="eve", password=PASSWORDS["eve"]) as eve:
        await eve.put("/eve/1", "x")
        with pytest.raises(client.Refused, match="permission denied"):
            await eve.get("/k/000")
    await agree(mixed, ROOT)


@pytest.mark.timeout(180)
async def test_both_programs_lead_and_serve_in_a_cluster_half_upgraded(mixed: MixedCluster) -> None:
    await mixed.wait_ready()
    new, newer, old = mixed.voters.values()
    for process in (new, newer):
        process.stop()
        mixed.upgrade(process).start()
        await answers(process)
    written = 0
    for leader in (old, new, old, newer):
        await lead(mixed, leader)
        for through in mixed.voters.values():
            async with client.connect(through.endpoint, timeout=20) as hf:
                written += 1
                await hf.put(f"/both/{written}", leader.name)
                lease = await hf.lease(10)
                await hf.put(f"/leased/{written}", "x", lease=lease)
                done = await hf.txn().if_(hf.key(f"/both/{written}").version == 1).then(hf.op.get("/both/1")).commit()
                assert done.succeeded
                assert (await hf.range("/both/", prefix=True)).count == written
                await lease.revoke()
                assert await hf.get(f"/leased/{written}") is None
    assert [await cluster_version(p) for p in (new, newer)] == [OLD, OLD]
    await agree(mixed)
    # The leader of the old program is killed, and one of the new one takes over from it, and the other way round.
    for leader in (old, new):
        await lead(mixed, leader)
        leader.kill()
        async with client.connect(mixed.endpoints, timeout=20) as hf:
            await hf.put("/after", leader.name)
        leader.start()
        await answers(leader)
    await agree(mixed)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("leader_is_old", [True, False])
async def test_a_member_of_the_other_program_joins_by_a_snapshot(mixed: MixedCluster, leader_is_old: bool) -> None:
    await mixed.wait_ready()
    first = mixed.voters["m1"]
    first.stop()
    mixed.upgrade(first).start()
    await answers(first)
    await lead(mixed, mixed.voters["m2"] if leader_is_old else first)
    async with client.connect(mixed.endpoints, timeout=20) as hf:
        for n in range(KEYS):
            await hf.put(f"/k/{n:03d}", str(n))
        process = mixed.add_voter("m4")
        added = await ask(hf, "Add", rpc_pb2.MemberAddRequest(peerURLs=[mixed.peer_url("m4")], isLearner=True))
        if not leader_is_old:
            mixed.downgrade(process)
        process.start()
        async with asyncio.timeout(60):
            while True:
                try:
                    await ask(hf, "Promote", rpc_pb2.MemberPromoteRequest(ID=added.member.ID))
                    break
                except client.Refused:
                    await asyncio.sleep(0.1)
    await answers(process)
    await agree(mixed)
