"""Disks without room for the state, although the log still has room: writes are refused, and nothing else stops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from holdfast.member.driver import Member
from holdfast.member.interface import Answer
from holdfast.status import NO_SPACE
from holdfast.storage import writer
from holdfast.storage.log import DurableLog

from ..small_disk import fill, small_disk
from .nodes import Nodes, cluster

PUTS, PUT_BYTES = 14, 300_000
LEFT_BYTES = 2_600_000  # less than a state of `PUTS` puts needs, and more than the next segments of three logs


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Segments of the log are small here, so it has room when the state has not."""
    defaults = DurableLog.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "segment_bytes", 1 << 18)
    monkeypatch.setattr(writer, "LEAVE_BYTES", 0)
    with small_disk(tmp_path / "disk", 60) as place:
        yield place


def members(nodes: Nodes) -> dict[str, Member]:
    found = {name: node.member for name, node in nodes.nodes.items()}
    return {name: member for name, member in found.items() if member is not None}


async def read(member: Member) -> Answer:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    member.read(answered.set_result)
    return await answered


async def put_when_led(nodes: Nodes, name: str) -> Answer:
    """The answer to a write that was not lost by a change of the leader, after which its outcome is unknown."""
    while True:
        terms = [member.core.raft.term for member in members(nodes).values()]
        answer = await nodes.put(name, b"refused")
        if answer.error == NO_SPACE or terms == [member.core.raft.term for member in members(nodes).values()]:
            return answer


@pytest.mark.parametrize("count", [1, 3])
async def test_a_state_that_cannot_be_flushed_for_want_of_room(disk: Path, count: int) -> None:
    """RocksDB takes nothing after such a flush. That counted as a fault of the store if the log had room: committed
    entries were not applied, so reads waited, and after a minute all members ended."""
    async with cluster(disk, count) as nodes:
        for n in range(PUTS):
            assert (await nodes.put("m0", b"k%d" % n, os.urandom(PUT_BYTES))).error is None
        fill(disk / "ballast", leave=LEFT_BYTES)
        for member in members(nodes).values():
            await member._flush()
        # A flush fills the disk until it fails; after that the logs have room again.
        await nodes.until(lambda: all(m.core.raft.full and not m._writer.full for m in members(nodes).values()))
        for name, member in members(nodes).items():
            assert (await put_when_led(nodes, name)).error == NO_SPACE
            assert (await read(member)).error is None
            member._busy_since = -1e9  # for longer than a stuck store is waited for
            member._watch_busy()
        (disk / "ballast").unlink()
        await nodes.until(lambda: not any(m.core.raft.full for m in members(nodes).values()))
        await nodes.put_everywhere(b"after")


async def test_a_leader_without_room_for_its_state_hands_over(disk: Path) -> None:
    async with cluster(disk) as nodes:
        name = nodes.leader
        assert name is not None
        leader = members(nodes)[name]
        for n in range(PUTS):
            assert (await nodes.put(name, b"k%d" % n, os.urandom(PUT_BYTES))).error is None
        fill(disk / "ballast", leave=LEFT_BYTES)
        await leader._flush()
        await nodes.until(lambda: nodes.leader in nodes.others(name))
        other = nodes.leader
        assert other is not None
        assert leader.disk_full
        assert (await nodes.put(other, b"taken")).error is None
        (disk / "ballast").unlink()
        await nodes.until(lambda: not leader.disk_full and leader.revision == members(nodes)[other].revision)
