"""A snapshot on its way: whole, broken off and continued, damaged. Over real sockets, from and to a real RocksDB.

The members around the transfers are stand-ins: they only have a state and get notifications.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import google_crc32c
import pytest
import uvloop
from holdfast.kv.store import Family
from holdfast.machine import Genesis, Machine
from holdfast.member import snapshots
from holdfast.member.frames import ProtocolError, frame, read_frame
from holdfast.member.snapshots import Snapshots
from holdfast.proto import raft_pb2
from holdfast.storage.state import RocksStore, StateDirectory
from holdfast_lab.crash.damage import damage_file

ROWS = 40


class End:
    """One side: a state directory, and what was offered to the core."""

    def __init__(self, path: Path, filled: bool) -> None:
        self.states = StateDirectory(path)
        place = self.states.fresh()
        self.store = RocksStore(place)
        Genesis((raft_pb2.MemberInfo(id=1),)).write(self.store)
        if filled:
            rows = [(Family.CUR, b"k%03d" % n, os.urandom(100_000)) for n in range(ROWS)]
            self.store.apply(rows)  # type: ignore[arg-type]
        self.store.flush()
        self.states.use(place)
        machine = Machine(self.store)
        raft = SimpleNamespace(log=SimpleNamespace(base_index=1))
        self.core = SimpleNamespace(term=2, leader=0, machine=machine, raft=raft)
        self.offered: list[tuple[int, int, int, Callable[[], RocksStore]]] = []
        self.transfers = Snapshots(self)  # type: ignore[arg-type]

    def offer_snapshot(self, index: int, term: int, frm: int, _: int, open_store: Callable[[], RocksStore]) -> None:
        self.offered.append((index, term, frm, open_store))


@asynccontextmanager
async def way(target: End, breaks: list[int]) -> AsyncIterator[str]:
    """The URL of `target`, on a way that breaks after so many bytes, once for each number."""
    received: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_frame(reader)
            writer.write(frame(raft_pb2.Hello()))
            if breaks:
                writer.transport.get_extra_info("socket")
                limited = _Limited(reader, breaks.pop(0))
                await target.transfers.receive(1, limited, writer)  # type: ignore[arg-type]
            else:
                await target.transfers.receive(1, reader, writer)
        except (OSError, asyncio.IncompleteReadError, ProtocolError):
            received.append(0)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class _Limited:
    """A reader whose connection breaks after so many bytes."""

    def __init__(self, reader: asyncio.StreamReader, left: int) -> None:
        self._reader = reader
        self._left = left

    async def readexactly(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ConnectionResetError("broken")
        return await self._reader.readexactly(size)


TRANSPORT: Any = SimpleNamespace(client_tls=None)


@pytest.fixture
def ends(tmp_path: Path) -> tuple[End, End]:
    return End(tmp_path / "from", filled=True), End(tmp_path / "to", filled=False)


def _content(store: RocksStore) -> list[tuple[bytes, bytes]]:
    return list(store.scan(Family.CUR, b"", None))


async def test_a_state_arrives_whole(ends: tuple[End, End]) -> None:
    source, target = ends
    async with way(target, []) as url:
        assert await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    ((index, term, frm, open_store),) = target.offered
    assert (index, term, frm) == (1, 1, 1)
    assert _content(open_store()) == _content(source.store)
    assert not list(source.states._directory.glob("sending-*"))


async def test_a_transfer_that_broke_off_goes_on(ends: tuple[End, End], caplog: pytest.LogCaptureFixture) -> None:
    source, target = ends
    caplog.set_level("INFO", "holdfast.snapshot")
    async with way(target, [1_500_000, 1_500_000]) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
        assert target.offered == []
        assert await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    continued = [int(r.args[1]) for r in caplog.records if "goes on" in r.msg]  # type: ignore[index, arg-type]
    assert len(continued) == 2
    assert 0 < continued[0] < continued[1], "nothing that has arrived is sent again"
    assert _content(target.offered[0][3]()) == _content(source.store)


async def test_a_state_that_the_log_does_not_go_on_from_is_not_continued(ends: tuple[End, End]) -> None:
    source, target = ends
    async with way(target, [1_500_000]) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
        first = source.transfers._outgoing[9].header.id
        source.core.raft.log.base_index = 5
        assert await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert first not in [o.header.id for o in source.transfers._outgoing.values()]
    assert len(target.offered) == 1


async def test_what_is_damaged_is_not_taken(ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = ends
    monkeypatch.setattr(google_crc32c, "value", len)

    async def wrong(file: Path, have: int | None, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(raft_pb2.SnapshotChunk(file=file.name, data=b"x", crc=7)))
        await writer.drain()

    monkeypatch.setattr(snapshots, "_send_file", wrong)
    async with way(target, []) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert target.offered == []


@pytest.mark.parametrize("kind", ["flipped", "truncated", "missing", "empty"])
async def test_a_state_that_was_damaged_at_its_sender_is_not_taken(
    ends: tuple[End, End], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The sums of the chunks are right then: what came is opened and read whole before it is put in use."""
    source, target = ends
    send = snapshots._send_file
    before = target.states.current()

    async def damaged(file: Path, have: int | None, writer: asyncio.StreamWriter) -> None:
        if file.suffix == ".sst":
            if kind == "missing":
                return
            copy = Path(shutil.copy(file, tmp_path))
            damage_file(copy, kind, Random(4))
            file = copy
        await send(file, have, writer)

    monkeypatch.setattr(snapshots, "_send_file", damaged)
    async with way(target, []) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert target.offered == []
    assert target.states.current() == before
    assert [p for p in target.states._directory.iterdir() if p.is_dir()] == [before]


async def test_an_older_state_under_a_newer_header_is_not_taken(ends: tuple[End, End]) -> None:
    source, target = ends
    source.core.machine.applied_index = 9
    async with way(target, []) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert target.offered == []


async def test_the_end_leaves_nothing_behind(ends: tuple[End, End]) -> None:
    source, target = ends
    async with way(target, [1_500_000]) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert list(source.states._directory.glob("sending-*"))
    await source.transfers.close()
    await target.transfers.close()
    assert not list(source.states._directory.glob("sending-*"))
    assert len([p for p in target.states._directory.iterdir() if p.is_dir()]) == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"format": 2}, "snapshot format 2"),
        ({"term": 1}, "is of the leader of term 1"),
        ({"term": 2**63}, "term 9223372036854775808"),
        ({"index": 2**63}, "it says that it is of"),
        ({"index_term": 3}, "it says that it is of"),
        ({"id": 0}, "it says that it is of"),
        ({"conf": raft_pb2.ConfState(voters=[2, 1])}, "its configuration"),
        ({"conf": raft_pb2.ConfState()}, "its configuration"),
    ],
)
async def test_a_state_that_is_not_our_leaders_is_refused_by_its_header(
    ends: tuple[End, End], fields: dict[str, Any], why: str
) -> None:
    source, target = ends
    sound = {"term": 2, "index": 1, "index_term": 1, "conf": raft_pb2.ConfState(voters=[1]), "format": 1, "id": 7}
    source.transfers._outgoing[9] = snapshots._Outgoing(
        source.states.fresh(), raft_pb2.SnapshotHeader(**{**sound, **fields}), float("inf")
    )
    source.core.term = source.transfers._outgoing[9].header.term
    async with way(target, []) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert why in target.transfers._refusal(raft_pb2.SnapshotHeader(**{**sound, **fields}), 1)
    assert target.offered == []


async def test_only_the_leader_replaces_a_state_and_one_at_a_time(ends: tuple[End, End]) -> None:
    header = raft_pb2.SnapshotHeader(term=2, index=1, index_term=1, conf=raft_pb2.ConfState(voters=[1]), format=1, id=7)
    _, target = ends
    assert target.transfers._refusal(header, 1) == ""
    target.core.leader = 3
    assert "the leader of term 2 is 3" in target.transfers._refusal(header, 1)
    assert target.transfers._refusal(header, 3) == ""
    target.transfers._receiving = 3
    assert "one of 3 is on its way" in target.transfers._refusal(header, 3)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp/x", "a\0b", ".hidden", "x" * 200])
async def test_a_file_that_is_none_of_a_states_is_not_written(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, target = ends

    async def wrong(file: Path, have: int | None, writer: asyncio.StreamWriter) -> None:
        chunk = raft_pb2.SnapshotChunk(file=name, data=b"x", crc=google_crc32c.value(b"x"))
        writer.write(frame(chunk))

    monkeypatch.setattr(snapshots, "_send_file", wrong)
    async with way(target, []) as url:
        assert not await source.transfers.send(9, url, TRANSPORT, raft_pb2.Hello())
    assert target.offered == []
    assert not [p for incoming in target.transfers._incoming.values() for p in incoming.place.iterdir()]


def test_who_ends_the_connection_does_not_end_the_sender(tmp_path: Path) -> None:
    """A follower without room ended it in the middle; the leader stopped, and then the next leader did. Only uvloop,
    which members run on, has an error of its own for what is written after the end: not one of a connection."""
    (tmp_path / "1.sst").write_bytes(bytes(1000))

    raised: list[Exception] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.transport.abort()  # as uvloop does when it finds the connection broken
        await asyncio.sleep(0)
        try:
            await snapshots._send_file(tmp_path / "1.sst", None, writer)
        except Exception as error:
            raised.append(error)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
    assert [type(error) for error in raised] == [ConnectionResetError]
