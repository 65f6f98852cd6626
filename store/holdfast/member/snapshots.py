"""Sends a whole state from one member to another, on its own connection, in chunks of at most 1 MiB with a CRC-32C.

It is sent from a checkpoint (hard links, so that writes continue meanwhile). It is received into a new generation of
the state beside the one in use, and offered to the core only when complete, verified and durable. An interrupted
transfer can be resumed: the sender keeps its checkpoint for a while, the receiver what arrived, and an id matches them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from holdfast.kv.store import StateDamaged
from holdfast.machine import applied
from holdfast.machine.members import encode_conf
from holdfast.member import codec
from holdfast.member.driver import Member
from holdfast.member.frames import ProtocolError, connect, read_frame, shown, write_frame
from holdfast.member.transport import Transport
from holdfast.member.validate import MAX_INDEX, MAX_TERM, MAX_TERM_JUMP
from holdfast.proto import raft_pb2
from holdfast.storage.state import RocksStore

log = logging.getLogger("holdfast.snapshot")

FORMAT = 1
CHUNK_BYTES = 1 << 20
IDLE_SECONDS = 30.0
KEEP_SECONDS = 120.0
MAX_HEADER_BYTES = 64 << 10
MAX_CHUNK_FRAME_BYTES = CHUNK_BYTES + 1024
SPARE_BYTES = 16 << 20  # left free for the log, which is on the same disk
# Names of RocksDB's files.
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(slots=True)
class _Outgoing:
    """A checkpoint of the state that is being sent to one member."""

    place: Path
    header: raft_pb2.SnapshotHeader
    kept_until: float


@dataclass(slots=True)
class _Incoming:
    """The part of a state that has arrived from one member."""

    id: int
    place: Path


class Snapshots:
    """The transfers of one member, in both directions. Call `close` when it stops."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._outgoing: dict[int, _Outgoing] = {}
        self._incoming: dict[int, _Incoming] = {}  # at most one, perhaps interrupted
        self._receiving = 0  # the member that sends a snapshot now; 0 = none

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        for to in list(self._outgoing):
            await self._drop(to)
        for incoming in self._incoming.values():
            await loop.run_in_executor(None, self._member.states.discard, incoming.place)
        self._incoming.clear()

    # ---- sending -------------------------------------------------------------------------------------------

    async def send(self, to: int, url: str, transport: Transport, hello: raft_pb2.Hello) -> bool:
        """Send the state, or resume an interrupted transfer to `to`. Returns whether `to` has all of it."""
        outgoing = await self._set_aside(to)
        if outgoing is None:
            return False
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                reader, writer = await connect(url, transport.client_tls)
            try:
                reply = await _send(outgoing, hello, reader, writer)
            finally:
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError) as error:
            log.info("a snapshot to %x was interrupted: %s", to, error)
            outgoing.kept_until = time.monotonic() + KEEP_SECONDS
            return False
        log.info("sent %x a snapshot at index %d: %s", to, outgoing.header.index, reply or "taken")
        await self._drop(to)
        return not reply

    async def _set_aside(self, to: int) -> _Outgoing | None:
        """The checkpoint of an interrupted transfer to `to`, if the log still continues it; else a new one."""
        member = self._member
        core = member.core
        known = self._outgoing.get(to)
        if known is not None:
            usable = time.monotonic() < known.kept_until and known.header.index >= core.raft.log.base_index
            if usable and known.header.term == core.term:
                return known
            await self._drop(to)
        loop = asyncio.get_running_loop()
        place = member.states.checkpoint_path()
        await loop.run_in_executor(None, member.store.flush)
        if core.machine.busy:
            return None
        # On the loop, so that it is exactly the state at this index; quick, because little is unflushed.
        member.store.checkpoint(place)
        header = raft_pb2.SnapshotHeader(
            term=core.term,
            index=core.machine.applied_index,
            index_term=core.machine.applied_term,
            conf=encode_conf(core.machine.conf),
            format=FORMAT,
            id=int.from_bytes(os.urandom(8), "big"),
        )
        self._outgoing[to] = _Outgoing(place, header, time.monotonic() + KEEP_SECONDS)
        return self._outgoing[to]

    async def _drop(self, to: int) -> None:
        place = self._outgoing.pop(to).place
        await asyncio.get_running_loop().run_in_executor(None, lambda: shutil.rmtree(place, ignore_errors=True))

    # ---- receiving -----------------------------------------------------------------------------------------

    async def receive(self, frm: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Receive a state, or the rest of one, and offer it to the core. An incomplete one is kept, to be resumed; an
        invalid one is deleted."""
        async with asyncio.timeout(IDLE_SECONDS):
            header = raft_pb2.SnapshotHeader.FromString(await read_frame(reader, MAX_HEADER_BYTES))
        reason = self._refusal(header, frm)
        if reason:
            log.warning("a snapshot of %x is refused: %s", frm, reason)
            write_frame(writer, raft_pb2.SnapshotHave(refused=reason))
            await writer.drain()
            return
        self._receiving = frm
        try:
            await self._receive(header, frm, reader, writer)
        finally:
            self._receiving = 0

    def _refusal(self, header: raft_pb2.SnapshotHeader, frm: int) -> str:
        """Why the snapshot is refused; empty if it is not. Only the leader may send one, and one at a time."""
        core = self._member.core
        if header.format != FORMAT:
            return f"snapshot format {header.format}, this program knows {FORMAT}"
        if header.term < core.term or (header.term == core.term and core.leader not in (0, frm)):
            return f"it is of the leader of term {header.term}; here the leader of term {core.term} is {core.leader:x}"
        if header.term >= MAX_TERM or header.term > core.term + MAX_TERM_JUMP:
            return f"term {header.term}, while ours is {core.term}"
        if not header.id or not 0 < header.index < MAX_INDEX or header.index_term > header.term:
            return f"it says that it is of {header.index}@{header.index_term}"
        if why := codec.conf_fault(header.conf):
            return f"its configuration: {why}"
        if self._receiving:
            return f"one of {self._receiving:x} is on its way"
        return ""

    async def _receive(
        self, header: raft_pb2.SnapshotHeader, frm: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        incoming = await self._continue(frm, header.id)
        place, member = incoming.place, self._member
        loop = asyncio.get_running_loop()
        have = raft_pb2.SnapshotHave()
        for file in sorted(place.iterdir()):
            have.parts.add(file=file.name, size=file.stat().st_size)
        write_frame(writer, have)
        await _receive_files(place, reader)
        try:
            index, term = await loop.run_in_executor(None, _verify, place)
            if (index, term) != (header.index, header.index_term):
                raise ProtocolError(f"said to be of index {header.index}, is of {index}")
        except BaseException:
            self._incoming.pop(frm, None)
            await loop.run_in_executor(None, member.states.discard, place)
            raise
        del self._incoming[frm]

        def put_in_use() -> RocksStore:
            member.states.use(place, installed=index)
            return RocksStore(place)

        member.offer_snapshot(index, term, frm, header.term, put_in_use)
        write_frame(writer, raft_pb2.SnapshotReply(ok=True))
        await writer.drain()

    async def _continue(self, frm: int, id: int) -> _Incoming:
        """The part of this state that arrived before; a fresh directory if the id is new."""
        known = self._incoming.get(frm)
        if known is not None and known.id == id:
            return known
        for before in list(self._incoming):
            place = self._incoming.pop(before).place
            await asyncio.get_running_loop().run_in_executor(None, self._member.states.discard, place)
        self._incoming[frm] = _Incoming(id, self._member.states.fresh())
        return self._incoming[frm]


async def _send(
    outgoing: _Outgoing, hello: raft_pb2.Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    """Send what the receiver lacks. Returns why it refused the snapshot; empty if it accepted."""
    async with asyncio.timeout(IDLE_SECONDS):
        write_frame(writer, hello)
        answer = raft_pb2.Hello.FromString(await read_frame(reader))
    if answer.refused:
        return shown(answer.refused)
    write_frame(writer, outgoing.header)
    async with asyncio.timeout(IDLE_SECONDS):
        have = raft_pb2.SnapshotHave.FromString(await read_frame(reader))
    if have.refused:
        return shown(have.refused)
    sizes = {part.file: part.size for part in have.parts}
    if sizes:
        log.info("a snapshot at index %d goes on: %d bytes are there", outgoing.header.index, sum(sizes.values()))
    for file in sorted(outgoing.place.iterdir()):
        await _send_file(file, sizes.get(file.name), writer)
    write_frame(writer, raft_pb2.SnapshotChunk(last=True))
    async with asyncio.timeout(IDLE_SECONDS):
        await writer.drain()
        reply = raft_pb2.SnapshotReply.FromString(await read_frame(reader))
    return "" if reply.ok else reply.reason or "refused"


async def _send_file(file: Path, have: int | None, writer: asyncio.StreamWriter) -> None:
    """Send `file` from byte `have` on. None: the receiver does not have the file; send a chunk even if it is empty."""
    loop = asyncio.get_running_loop()
    with file.open("rb") as source:
        at = source.seek(have or 0)
        first = have is None
        while (data := await loop.run_in_executor(None, source.read, CHUNK_BYTES)) or first:
            first = False
            chunk = raft_pb2.SnapshotChunk(file=file.name, data=data, crc=google_crc32c.value(data), offset=at)
            at += len(data)
            write_frame(writer, chunk)
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.drain()


async def _receive_files(place: Path, reader: asyncio.StreamReader) -> None:
    """Receive chunks until the last one. Only whole, verified chunks are written, so a resumed transfer keeps them."""
    loop = asyncio.get_running_loop()
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            chunk = raft_pb2.SnapshotChunk.FromString(await read_frame(reader, MAX_CHUNK_FRAME_BYTES))
        if chunk.last:
            return
        if not _FILE_NAME.fullmatch(chunk.file) or google_crc32c.value(chunk.data) != chunk.crc:
            raise ProtocolError(f"a damaged chunk of {chunk.file!r}")
        await loop.run_in_executor(None, _append, place / chunk.file, chunk.offset, chunk.data)


def _append(path: Path, offset: int, data: bytes) -> None:
    size = path.stat().st_size if path.exists() else 0
    room = os.statvfs(path.parent)
    if room.f_bavail * room.f_frsize < len(data) + SPARE_BYTES:
        raise ProtocolError(f"no room for a snapshot in {path.parent}")
    if size != offset:
        raise ProtocolError(f"a chunk of {path.name} for byte {offset}, {size} are there")
    with path.open("ab") as file:
        file.write(data)


def _verify(place: Path) -> tuple[int, int]:
    """Open the received state and read all of it, so that damage at the sender is never installed here."""
    try:
        store = RocksStore(place)
        try:
            store.verify()
            return applied(store)
        finally:
            store.close()
    except StateDamaged as error:
        raise ProtocolError(f"what was sent is damaged: {error}") from error
