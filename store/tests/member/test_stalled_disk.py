"""A disk that hangs: no write returns, and none fails. The others must not depend on a leader with such a disk.

The hang is made in this process, in front of the real log: a device that hangs cannot be had without a kernel module.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.member.stall import StallWatch
from holdfast.proto import raft_pb2
from holdfast.raft.types import DurableAppend

from .nodes import cluster


@contextmanager
def hung_disk(member: Member) -> Iterator[None]:
    """Every write of the log waits until the end."""
    log, goes_on = member._writer._log, threading.Event()
    write = log.append

    def wait_and_write(records: list[DurableAppend]) -> None:
        goes_on.wait()
        write(records)

    log.append = wait_and_write  # type: ignore[method-assign]
    try:
        yield
    finally:
        goes_on.set()
        log.append = write  # type: ignore[method-assign]


async def _ask(member: Member, lease: int) -> Answer:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    member.keep_alive(lease, answered.set_result)
    return await answered


async def _grant(member: Member, lease: int, seconds: int) -> None:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    grant = raft_pb2.LeaseGrant(id=lease, ttl_seconds=seconds)
    member.propose(raft_pb2.Command(lease_grant=grant), answered.set_result)
    assert (await answered).error is None


async def test_a_leader_whose_disk_hangs_hands_over_and_leases_live_on(tmp_path: Path) -> None:
    """It went on leading by its heartbeats. The others committed without it, but renewals wait for what is applied at
    the leader, which has to be durable there first: every lease of the cluster ended."""
    async with cluster(tmp_path) as nodes:
        name = nodes.leader
        assert name is not None
        leader, healthy = nodes.nodes[name].member, nodes.nodes[nodes.others(name)[0]].member
        assert leader is not None
        assert healthy is not None
        await _grant(healthy, 7, 3)
        with hung_disk(leader):
            for n in range(12):  # longer than the lease
                assert (await nodes.put(nodes.others(name)[0], b"%d" % n)).error is None
                answer = await _ask(healthy, 7)
                assert (answer.error, answer.ttl) == (None, 3)
                await asyncio.sleep(0.5)  # a client renews now and then
            assert nodes.leader in nodes.others(name)
            assert leader.disk_stalled
            assert not healthy.disk_stalled
        assert 7 in healthy.state.leases
        await nodes.until(lambda: not leader.disk_stalled and leader.revision == healthy.revision)
        await nodes.put_everywhere(b"after")


async def test_a_single_voter_with_a_hung_disk_goes_on_when_the_disk_does(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as nodes:
        member = nodes.nodes["m0"].member
        assert member is not None
        with hung_disk(member):
            writing = asyncio.ensure_future(nodes.put("m0", b"k"))
            await nodes.until(lambda: member.disk_stalled)
            assert member.core.is_leader
        assert (await writing).error is None
        await nodes.until(lambda: not member.disk_stalled)


def test_only_writes_that_wait_without_any_progress_are_a_stall() -> None:
    watch = StallWatch(2.0)
    assert not watch.look(5, 5, 0.0)
    assert watch.look(6, 5, 1.0)
    assert watch.look(7, 6, 2.9)  # slow, and it goes on
    assert watch.look(8, 6, 4.8)
    assert not watch.stalled
    assert watch.look(9, 6, 4.9)
    assert watch.stalled
    assert watch.look(9, 8, 5.0)
    assert not watch.stalled
    assert not watch.look(9, 9, 100.0)
    assert watch.look(10, 9, 200.0)  # idle in between
    assert not watch.stalled
