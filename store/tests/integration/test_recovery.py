"""A member that is started again serves nothing that is older than what it served before."""

from __future__ import annotations

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from holdfast import client
from holdfast.member.recovery import Replay
from holdfast.proto import rpc_pb2
from holdfast.storage.log import DurableLog
from holdfast_lab.processes import LocalCluster, Process

from .users import enable, set_up

ROUNDS = 20


async def ask(process: Process, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse | None:
    """One serializable read on a connection of its own; None if it was not answered."""
    async with grpc.aio.insecure_channel(process.endpoint) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )
        try:
            answer: rpc_pb2.RangeResponse = await call(request, timeout=1.0, wait_for_ready=True)
            return answer
        except grpc.aio.AioRpcError:
            return None


async def watch_revision(process: Process) -> int | None:
    """The revision that a watch is told when it is made."""
    async with grpc.aio.insecure_channel(process.endpoint) as channel:
        call = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )(timeout=1.0)
        try:
            await call.write(rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"/n")))
            answer = await call.read()
            return None if answer is grpc.aio.EOF else int(answer.header.revision)
        except grpc.aio.AioRpcError:
            return None


def page(process: Process, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """(status, body); 0 if there was no answer."""
    try:
        with urllib.request.urlopen(f"http://{process.endpoint}{path}", data=body, timeout=1.0) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError:
        return 0, b""


async def fill(endpoints: list[str], count: int) -> None:
    async with client.connect(endpoints, timeout=30) as hf:
        for begin in range(0, count, 500):
            await asyncio.gather(*(hf.put(f"/fill/{n}", "x") for n in range(begin, min(begin + 500, count))))


@pytest.mark.timeout(300)
async def test_revisions_do_not_go_back_over_a_kill_under_load(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    await fill(cluster.endpoints, 4000)
    stop = asyncio.Event()

    async def write(number: int) -> None:
        async with client.connect(cluster.endpoints, timeout=30) as hf:
            while not stop.is_set():
                await hf.put(f"/w/{number}", "x")

    writers = [asyncio.ensure_future(write(n)) for n in range(4)]
    try:
        for round_ in range(ROUNDS):
            victim = list(cluster.voters.values())[round_ % 3]
            seen = 0
            for _ in range(15):
                answer = await ask(victim, rpc_pb2.RangeRequest(key=b"/n", serializable=True))
                seen = max(seen, answer.header.revision if answer is not None else 0)
            assert seen
            victim.kill()
            victim.start()
            first = watched = None
            async with asyncio.timeout(30):
                while first is None or watched is None:
                    if first is None:
                        first = await ask(victim, rpc_pb2.RangeRequest(key=b"/n", serializable=True))
                    watched = watched or await watch_revision(victim)
            assert first.header.revision >= seen, f"round {round_}"
            assert watched >= seen, f"round {round_}"
    finally:
        stop.set()
        await asyncio.gather(*writers)


@pytest_asyncio.fixture
async def one(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    local = LocalCluster(tmp_path, voters=1, extra=["--bcrypt-cost=4"])
    local.start()
    try:
        yield local
    finally:
        local.kill()
        print(local.logs())


async def test_rights_and_pages_do_not_go_back_over_a_kill(one: LocalCluster) -> None:
    await set_up(one)
    (process,) = one.voters.values()
    await fill(one.endpoints, 4000)
    async with client.connect(one.endpoints, timeout=20) as hf:
        await enable(hf)
    for _ in range(3):
        process.kill()
        process.start()
        request = rpc_pb2.RangeRequest(key=b"/fill/1", serializable=True)
        body = json.dumps({"key": "L2ZpbGwvMQ==", "serializable": True}).encode()
        done = False
        async with asyncio.timeout(30):
            while not done:
                # While it is not ready nothing is answered; and when it is, only by the rights of now.
                well, _ = await asyncio.to_thread(page, process, "/health?serializable=true")
                done = await asyncio.to_thread(page, process, "/readyz") == (200, b"ok\n")
                assert await ask(process, request) is None
                status, told = await asyncio.to_thread(page, process, "/v3/kv/range", body)
                assert status != 200
                if well == 200:
                    assert b"user name is empty" in told


async def test_without_a_quorum_it_serves_if_it_can_know_that_it_has_all(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    await fill(cluster.endpoints, 1000)
    async with client.connect(cluster.endpoints, timeout=20) as hf:
        put = await hf.put("/n", "last")
    leader = await cluster.leader()
    others = [p for p in cluster.voters.values() if p is not leader]
    request = rpc_pb2.RangeRequest(key=b"/n", serializable=True)
    # Quiet for long enough that the commit index is written down; then everything is killed, and one is started.
    await _logged(cluster, leader, all_committed=True)
    cluster.kill()
    leader.start()
    async with asyncio.timeout(20):
        while (answer := await ask(leader, request)) is None:
            await asyncio.sleep(0.01)
    assert answer.kvs[0].value == b"last"
    assert answer.header.revision >= put.revision
    # Now the end of its log may or may not be committed, and no leader can tell: the error says so.
    for process in others:
        process.start()
    await cluster.wait_ready()
    leader = await cluster.leader()
    for process in cluster.voters.values():
        if process is not leader:
            process.kill()
    async with client.connect(leader.endpoint, timeout=1) as hf:
        with pytest.raises(client.ClientError):
            await hf.put("/n", "perhaps")
    await _logged(cluster, leader, all_committed=False)
    leader.kill()
    leader.start()
    async with client.connect(leader.endpoint, timeout=10) as hf:
        with pytest.raises(client.Unavailable, match="its first word from a leader"):
            await hf.get("/n", serializable=True)
        with pytest.raises(client.Unavailable, match="its first word from a leader"):
            await hf.status()
    assert page(leader, "/livez")[0] == 200
    assert page(leader, "/readyz")[0] == 503
    assert b"has not yet all that it served" in page(leader, "/readyz/serializable_read")[1]
    assert page(leader, "/health?serializable=true")[0] == 503


async def _logged(cluster: LocalCluster, process: Process, *, all_committed: bool) -> None:
    """Until the log of `process` on the disk says that all of it is committed, or that not all is."""
    log, copy = cluster.directory / process.name / "log", cluster.directory / "copy"
    async with asyncio.timeout(20):
        while True:
            shutil.rmtree(copy, ignore_errors=True)
            # The mark first: it must not say more than the copy of the log has.
            shutil.copy(log.with_name("log.synced"), copy.with_name("copy.synced"))
            shutil.copytree(log, copy)
            known = Replay(DurableLog(copy).replay())
            if (known.hard_state.commit == known.log.last) is all_committed:
                return
            await asyncio.sleep(0.05)


async def test_a_voter_without_a_leader_is_ready_and_says_so(cluster: LocalCluster) -> None:
    """Were it not ready, losing the quorum would take away every endpoint, and serializable reads with them."""
    await cluster.wait_ready()
    one, *others = cluster.voters.values()
    assert page(one, "/readyz") == (200, b"ok\n")
    assert page(one, "/readyz/leader") == (200, b"ok\n")
    for process in others:
        process.kill()
    async with asyncio.timeout(30):
        while (told := await asyncio.to_thread(page, one, "/readyz/leader"))[0] != 503:
            await asyncio.sleep(0.05)
    assert b"no leader for" in told[1]
    status, body = page(one, "/readyz")
    assert status == 200
    assert body.startswith(b"ok\n[!]no leader for")
    assert b"[!]no leader for" in page(one, "/readyz?verbose")[1]
    assert page(one, "/livez") == (200, b"ok\n")
    assert page(one, "/health")[0] == 503
    # What kubeadm's and others' manifests have for a liveness probe: were it 503, every member would be started again
    # and again while there is no quorum.
    assert page(one, "/health?serializable=true")[0] == 200
    assert (await ask(one, rpc_pb2.RangeRequest(key=b"/n", serializable=True))) is not None
    for process in others:
        process.start()
    async with asyncio.timeout(30):
        while await asyncio.to_thread(page, one, "/readyz") != (200, b"ok\n"):
            await asyncio.sleep(0.05)
