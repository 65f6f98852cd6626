"""A whole state from one member to another, on a connection of its own, in chunks of at most 1 MiB.

Sent from a checkpoint (hard links, so writes go on meanwhile); received into a new generation of the state beside the
one in use, and offered to the core only when it is complete and durable.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import google_crc32c

from holdfast.machine import applied
from holdfast.member import codec
from holdfast.member.driver import Member
from holdfast.member.transport import ProtocolError, Transport, connect, frame, read_frame
from holdfast.proto import raft_pb2
from holdfast.storage.state import RocksStore

log = logging.getLogger("holdfast.snapshot")

FORMAT = 1
CHUNK_BYTES = 1 << 20
IDLE_SECONDS = 30.0


async def send_snapshot(member: Member, to: int, url: str, transport: Transport, hello: raft_pb2.Hello) -> bool:
    """Send the state as it is now. Returns whether the other side has all of it."""
    loop = asyncio.get_running_loop()
    core = member.core
    place = member.states.checkpoint_path()
    await loop.run_in_executor(None, member.store.flush)
    if core.machine.busy:
        return False
    # On the loop, so that it is exactly the state at this index; little is unflushed, so it is quick.
    member.store.checkpoint(place)
    header = raft_pb2.SnapshotHeader(
        term=core.term,
        index=core.machine.applied_index,
        index_term=core.machine.applied_term,
        conf=codec.encode_conf(core.machine.conf),
        format=FORMAT,
    )
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            reader, writer = await connect(url, transport.client_tls)
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                writer.write(frame(hello))
                answer = raft_pb2.Hello.FromString(await read_frame(reader))
            if answer.refused:
                log.warning("%x refused a snapshot: %s", to, answer.refused)
                return False
            writer.write(frame(header))
            for file in sorted(place.iterdir()):
                await _send_file(file, writer)
            writer.write(frame(raft_pb2.SnapshotChunk(last=True)))
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.drain()
                reply = raft_pb2.SnapshotReply.FromString(await read_frame(reader))
            log.info("sent %x a snapshot at index %d: %s", to, header.index, reply.reason or "taken")
            return reply.ok
        finally:
            writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError) as error:
        log.info("a snapshot to %x failed: %s", to, error)
        return False
    finally:
        await loop.run_in_executor(None, lambda: shutil.rmtree(place, ignore_errors=True))


async def _send_file(file: Path, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with file.open("rb") as source:
        first = True
        while (data := await loop.run_in_executor(None, source.read, CHUNK_BYTES)) or first:
            first = False
            chunk = raft_pb2.SnapshotChunk(file=file.name, data=data, crc=google_crc32c.value(data))
            writer.write(frame(chunk))
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.drain()


async def receive_snapshot(
    member: Member, frm: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Receive a state and offer it to the core. An incomplete one leaves nothing behind."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(IDLE_SECONDS):
        header = raft_pb2.SnapshotHeader.FromString(await read_frame(reader))
    if header.format != FORMAT:
        reason = f"snapshot format {header.format}, this program knows {FORMAT}"
        writer.write(frame(raft_pb2.SnapshotReply(ok=False, reason=reason)))
        return
    place = member.states.fresh()
    try:
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = raft_pb2.SnapshotChunk.FromString(await read_frame(reader))
            if chunk.last:
                break
            if Path(chunk.file).name != chunk.file or google_crc32c.value(chunk.data) != chunk.crc:
                raise ProtocolError(f"a damaged chunk of {chunk.file!r}")
            await loop.run_in_executor(None, _append, place / chunk.file, chunk.data)
        index, term = await loop.run_in_executor(None, _verify, place)
        if (index, term) != (header.index, header.index_term):
            raise ProtocolError(f"said to be of index {header.index}, is of {index}")
    except BaseException:
        await loop.run_in_executor(None, member.states.discard, place)
        raise

    def put_in_use() -> RocksStore:
        member.states.use(place)
        return RocksStore(place)

    member.offer_snapshot(index, term, frm, header.term, put_in_use)
    writer.write(frame(raft_pb2.SnapshotReply(ok=True)))
    await writer.drain()


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _verify(place: Path) -> tuple[int, int]:
    """Open what came, so that what cannot be opened is never put in use."""
    store = RocksStore(place)
    try:
        return applied(store)
    finally:
        store.close()
