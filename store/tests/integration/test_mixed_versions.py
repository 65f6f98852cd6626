"""Members of the version before and of this one in one cluster, as while it is upgraded: real processes of both."""

from __future__ import annotations

import asyncio
import shutil
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
                    # Whichever program leads, and whichever member is asked: the first answer is given again.
                    again = await hf.connection.call(
                        PUT, request, rpc_pb2.PutResponse, idempotent=False, name=name, endpoint=other.endpoint
                    )
                    assert again.header.revision == first.header.revision
                await reaches_version([p for p in up if not mixed.is_old(p)], OLD, ROOT)
                mixed.upgrade(process).start()
                await answers(process, ROOT)
            await reaches_version(mixed.voters.values(), NEW, ROOT)
            await traffic.some_more()
        assert 'holdfast_cluster_version{cluster_version="0.2.0"} 1.0' in metrics(mixed.voters["m1"])
        # The old program did not record whose answer that was: while auth is on, it is never given.
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


async def test_the_old_program_refuses_a_directory_of_the_new_format(mixed: MixedCluster) -> None:
    """Also while the cluster could still be of both: what is upgraded is not put back."""
    await mixed.wait_ready()
    process = mixed.voters["m3"]
    process.stop()
    mixed.upgrade(process).start()
    await answers(process)
    process.stop()
    mixed.downgrade(process).start()
    assert process.running is not None
    assert await asyncio.to_thread(process.running.wait, 30) == 1
    assert "has the format 'holdfast data 2', this program knows 'holdfast data 1'" in process.tail(1)
    mixed.upgrade(process).start()
    await answers(process)
    await agree(mixed)


async def test_an_old_program_stops_at_what_it_does_not_know(mixed: MixedCluster, tmp_path: Path) -> None:
    """Its directory, copied before the upgrade, is put back after the version of the cluster has risen: it applies
    nothing of version 0.2, and goes on where it is as soon as its program is the new one."""
    await mixed.wait_ready()
    async with client.connect(mixed.endpoints, timeout=20) as hf:
        await hf.put("/before", "x")
    process = mixed.voters["m3"]
    place = tmp_path / "m3"
    process.stop()
    shutil.copytree(place, tmp_path / "copy")
    for each in mixed.voters.values():
        each.stop()
        mixed.upgrade(each).start()
        await answers(each)
    await reaches_version(mixed.voters.values(), NEW)
    async with client.connect(mixed.endpoints, timeout=20) as hf:
        await hf.put("/after", "x")
    process.stop()
    shutil.rmtree(place)
    shutil.move(tmp_path / "copy", place)
    leader = await mixed.leader()  # remembers what m3 had; another one asks
    await lead(mixed, next(p for p in mixed.voters.values() if p not in (leader, process)))
    for _ in range(2):
        mixed.downgrade(process).start()
        assert process.running is not None
        assert await asyncio.to_thread(process.running.wait, 30) != 0
        assert "has command format 2; this program knows up to 1: upgrade it" in process.tail(1)
        async with client.connect([p.endpoint for p in mixed.voters.values() if p is not process], timeout=20) as hf:
            await hf.put("/meanwhile", "x")
    mixed.upgrade(process).start()
    await answers(process)
    await agree(mixed)


async def test_an_old_program_that_joins_later_stops(mixed: MixedCluster) -> None:
    """With an empty directory, as a learner of a cluster whose version has risen."""
    await mixed.wait_ready()
    for each in mixed.voters.values():
        each.stop()
        mixed.upgrade(each).start()
        await answers(each)
    await reaches_version(mixed.voters.values(), NEW)
    async with client.connect(mixed.endpoints, timeout=20) as hf:
        process = mixed.downgrade(mixed.add_voter("m4"))
        await ask(hf, "Add", rpc_pb2.MemberAddRequest(peerURLs=[mixed.peer_url("m4")], isLearner=True))
        process.start()
        async with asyncio.timeout(30):
            while process.running is not None and process.running.poll() is None:
                await hf.put("/on", "x")
                await asyncio.sleep(0.1)
        assert "upgrade it" in process.tail(1)
        mixed.upgrade(process).start()
        async with asyncio.timeout(30):
            while (await hf.describe(process.endpoint)).revision < (await hf.range("/on")).revision:
                await asyncio.sleep(0.1)
        assert await cluster_version(process) == NEW


@pytest.mark.parametrize("member_is_old", [True, False])
async def test_a_replica_follows_a_member_of_the_other_program(mixed: MixedCluster, member_is_old: bool) -> None:
    await mixed.wait_ready()
    member = mixed.voters["m1"]
    if not member_is_old:
        member.stop()
        mixed.upgrade(member).start()
        await answers(member)
    replica = mixed.replica("berlin", member, old=not member_is_old)

    async def reaches(revision: int) -> None:
        async with client.connect(replica.endpoint, timeout=20) as at, asyncio.timeout(30):
            while (await at.describe()).revision < revision:
                await asyncio.sleep(0.05)

    async def holds(key: str, value: bytes, revision: int) -> None:
        async with client.connect(replica.endpoint, timeout=20) as at:
            await reaches(revision)
            found = await at.get(key, serializable=True)
            assert found is not None
            assert (found.value, found.mod_revision) == (value, revision)

    try:
        async with client.connect(mixed.endpoints, timeout=20) as hf:
            await hf.put("/first", "x")
            replica.start()
            await holds("/first", b"y", (await hf.put("/first", "y")).revision)
            async with client.connect(replica.endpoint, timeout=20) as at:
                # What it forwards: a write, a linearizable read, a lease.
                await holds("/through", b"1", (await at.put("/through", "1")).revision)
                assert await at.get("/through") is not None
                async with await at.lease(10) as lease:
                    await at.put("/leased", "x", lease=lease)
                assert await at.get("/leased") is None
            # Each is upgraded under the other; its position counts on.
            for upgraded in (member, replica):
                upgraded.stop()
                mixed.upgrade(upgraded).start()
                if upgraded is member:
                    await answers(member)
                await holds("/first", upgraded.name.encode(), (await hf.put("/first", upgraded.name)).revision)
    finally:
        replica.kill()
        print(replica.tail())


@pytest.mark.timeout(180)
async def test_taking_over_a_directory_may_be_interrupted_anywhere(mixed: MixedCluster, tmp_path: Path) -> None:
    """kill -9 after each of the steps of taking it over, on one directory after the other and on the same one."""
    await mixed.wait_ready()
    async with client.connect(mixed.endpoints, timeout=20) as hf:
        for n in range(KEYS):
            await hf.put(f"/k/{n:03d}", str(n))
    process = mixed.voters["m2"]
    place = tmp_path / "m2"
    process.kill()
    mixed.upgrade(process)
    names = ("identity.json", "founding.json", "state/current")
    steps = ["log.synced", *(file for name in names for file in (f"{name}.copy", name)), "FORMAT.new"]
    interrupted = 0
    for step in (*steps, *reversed(steps)):
        if taken_over(place):
            break  # the kill came too late
        before = stamp(place / step)
        process.start()
        assert process.running is not None
        while stamp(place / step) == before and not taken_over(place):
            assert process.running.poll() is None, process.tail()
        process.kill()
        interrupted += not taken_over(place)
    assert interrupted
    process.start()
    await answers(process)
    assert taken_over(place)
    await agree(mixed)
    async with client.connect(process.endpoint, timeout=20) as hf:
        assert (await hf.range("/k/", prefix=True, serializable=True)).count == KEYS


def taken_over(place: Path) -> bool:
    return (place / "FORMAT").read_text() == "holdfast data 2\n"


def stamp(file: Path) -> int:
    """Differs once the file is written anew."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
