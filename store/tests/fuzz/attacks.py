"""Attacks of a single connection, each as hard as possible, until it is closed.

    python -m tests.fuzz.attacks NAME PORT SECONDS

A process of its own, so that what it costs the attacker does not slow the client that is measured (`alone.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable

from google.protobuf.message import Message
from holdfast.front.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Setting,
    frame,
    literal,
    settings,
    window_update,
)
from holdfast.front.http2.grpc import framed
from holdfast.proto import holdfast_pb2, rpc_pb2

HELLO = PREFACE + frame(SETTINGS, 0, 0)
FRAME_BYTES = 16_000
RANGE, PUT, TXN = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn"

Bytes = AsyncIterator[bytes]


def call(path: str, *more: tuple[bytes, bytes]) -> bytes:
    """The headers of a gRPC call."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode("latin-1"))]
    fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *more]
    return b"".join(literal(name, value) for name, value in fields)


def opened(streams: int, block: bytes) -> bytes:
    """So many requests without an end."""
    return b"".join(frame(HEADERS, END_HEADERS, 2 * n + 1, block) for n in range(streams))


def message(stream: int, body: bytes) -> bytes:
    data = framed(body)
    ats = range(0, len(data), FRAME_BYTES)
    parts = [(END_STREAM if at == ats[-1] else 0, data[at : at + FRAME_BYTES]) for at in ats]
    return b"".join(frame(DATA, flags, stream, part) for flags, part in parts)


async def settings_windows() -> Bytes:
    """The first window of ten thousand open streams, 2,730 times a frame."""
    yield HELLO + opened(10_000, call(RANGE))
    entries = b"".join(
        int(Setting.INITIAL_WINDOW_SIZE).to_bytes(2, "big") + (n & 1).to_bytes(4, "big") for n in range(2_730)
    )
    while True:
        yield frame(SETTINGS, 0, 0, entries) * 10
        await asyncio.sleep(0.01)


async def window_updates() -> Bytes:
    """The window of the connection by one byte, again and again, while five thousand answers wait."""
    yield HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 0})
    asked = rpc_pb2.RangeRequest(key=b"/well-behaved", serializable=True).SerializeToString()
    for first in range(0, 5_000, 500):
        streams = range(2 * first + 1, 2 * (first + 500) + 1, 2)
        yield b"".join(frame(HEADERS, END_HEADERS, id, call(RANGE)) + message(id, asked) for id in streams)
        await asyncio.sleep(0.05)
    size = 1
    while True:
        yield window_update(0, 1) * 40 + settings({Setting.INITIAL_WINDOW_SIZE: size})
        size += 1
        await asyncio.sleep(0.01)


async def half_open() -> Bytes:
    """Calls without a message, as many as there may be."""
    yield HELLO + opened(20_000, call(RANGE))
    while True:
        yield b""
        await asyncio.sleep(0.1)


async def slow_bodies() -> Bytes:
    """Ten thousand messages, a byte of each at a time."""
    yield (
        HELLO
        + opened(10_000, call(PUT))
        + b"".join(frame(DATA, 0, 2 * n + 1, b"\x00\x00\x10\x00\x00") for n in range(10_000))
    )
    while True:
        for first in range(0, 10_000, 500):
            yield b"".join(frame(DATA, 0, 2 * n + 1, b"a") for n in range(first, first + 500))
            await asyncio.sleep(0.01)


async def long_paths() -> Bytes:
    """Unknown methods, with names as long as headers may be."""
    block = call("/" + "\xff" * 60_000 + "/x")
    parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
    yield HELLO
    stream = 1
    while True:
        out = frame(HEADERS, END_STREAM, stream, parts[0])
        out += b"".join(frame(CONTINUATION, 0, stream, part) for part in parts[1:-1])
        yield out + frame(CONTINUATION, END_HEADERS, stream, parts[-1])
        stream += 2


async def calls_and_resets() -> Bytes:
    """Calls that are given up as soon as they are made."""
    block = call(RANGE)
    asked = rpc_pb2.RangeRequest(key=b"/", range_end=b"0").SerializeToString()
    yield HELLO
    for first in range(1, 1 << 30, 200):
        ids = range(first, first + 200, 2)
        cancel = b"\x00\x00\x00\x08"
        yield b"".join(
            frame(HEADERS, END_HEADERS, id, block) + message(id, asked) + frame(RST_STREAM, 0, id, cancel) for id in ids
        )
        await asyncio.sleep(0.025)


async def future_tokens() -> Bytes:
    """Tokens that say they are of a revision that is far away (with users)."""
    block = call(RANGE, (b"token", b"x.999999999999"))
    asked = message(1, rpc_pb2.RangeRequest(key=b"a").SerializeToString())[9:]
    yield HELLO
    for stream in range(1, 1 << 30, 2):
        yield frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, asked)
        await asyncio.sleep(0.005)


async def nested_pairs() -> Bytes:
    """A transaction of transactions: six thousand puts, and as many deletions, which may overlap."""
    whole = rpc_pb2.TxnRequest()
    for puts in (True, False):
        for group in range(4):
            inner = whole.success.add().request_txn
            for number in range(1_500):
                if number % 40 == 0:
                    innermost = inner.success.add().request_txn
                operation, key = innermost.success.add(), b"%x" % (group * 1_500 + number)
                if puts:
                    operation.request_put.key = b"p" + key
                else:
                    operation.request_delete_range.key = b"d" + key
    body = whole.SerializeToString()
    yield HELLO + window_update(0, 1 << 30)
    for stream in range(1, 1 << 30, 2):
        yield frame(HEADERS, END_HEADERS, stream, call(TXN)) + message(stream, body)
        await asyncio.sleep(0.05)


async def many_rows() -> Bytes:
    """Bursts of calls of a few hundred bytes, each of which looks at 8,000 rows."""
    yield HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 1 << 24}) + window_update(0, 1 << 30)
    streams = itertools.count(1, 2)

    def ask(path: str, request: Message) -> bytes:
        stream = next(streams)
        return frame(HEADERS, END_HEADERS, stream, call(path)) + message(stream, request.SerializeToString())

    yield ask("/etcdserverpb.Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(ID=7, TTL=600))
    await asyncio.sleep(0.2)
    for group in range(80):
        puts = rpc_pb2.TxnRequest()
        for number in range(100):
            puts.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"r/%d/%d" % (group, number), lease=7))
        yield ask(TXN, puts)
    compare = rpc_pb2.Compare(key=b"r/", range_end=b"r0", target=rpc_pb2.Compare.CREATE, result=rpc_pb2.Compare.GREATER)
    reads, writes = rpc_pb2.TxnRequest(compare=[compare]), rpc_pb2.TxnRequest(compare=[compare])
    reads.success.add().request_range.key = b"w"
    writes.success.add().request_put.key = b"w"
    keys = rpc_pb2.LeaseTimeToLiveRequest(ID=7, keys=True)
    r = rpc_pb2.RangeRequest
    newest = r(key=b"r/", range_end=b"r0", limit=1, sort_order=r.DESCEND, sort_target=r.CREATE)
    while True:
        for _ in range(50):
            yield ask(TXN, reads) + ask(TXN, writes) + ask(RANGE, newest)
            yield ask("/etcdserverpb.Lease/LeaseTimeToLive", keys)
        await asyncio.sleep(0.2)


async def past_watches() -> Bytes:
    """A thousand watches of one stream, each from an old revision on; most of them want none of its changes."""
    yield HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + window_update(0, 1 << 30)
    streams = itertools.count(1, 2)
    for number in range(60):
        puts = rpc_pb2.TxnRequest()
        for group in range(8):
            inner = puts.success.add().request_txn
            for key in range(120):
                inner.success.add().request_put.CopyFrom(rpc_pb2.PutRequest(key=b"p/%d/%d" % (group, key)))
        stream = next(streams)
        yield frame(HEADERS, END_HEADERS, stream, call(TXN)) + message(stream, puts.SerializeToString())
        if number % 10 == 9:
            await asyncio.sleep(0.1)
    while True:
        stream = next(streams)
        yield frame(HEADERS, END_HEADERS, stream, call("/etcdserverpb.Watch/Watch"))
        for number in range(1_000):
            create = rpc_pb2.WatchCreateRequest(key=b"nothing/%d" % number, start_revision=2 + number % 40)
            if number % 50 == 0:
                create.key, create.range_end = b"p/", b"p0"
            request = rpc_pb2.WatchRequest(create_request=create)
            yield frame(DATA, 0, stream, framed(request.SerializeToString()))
        await asyncio.sleep(1)
        yield frame(RST_STREAM, 0, stream, b"\x00\x00\x00\x08")


async def cache_leases() -> Bytes:
    """Many holders of cache leases that ask all the time and acknowledge nothing, and writes that wait for them."""
    yield HELLO + settings({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + window_update(0, 1 << 30)
    streams = itertools.count(1, 2)

    def ask(path: str, request: Message) -> bytes:
        stream = next(streams)
        return frame(HEADERS, END_HEADERS, stream, call(path)) + message(stream, request.SerializeToString())

    yield ask("/holdfast.v1.Caches/Allow", holdfast_pb2.CachePrefixRequest(prefix=b"c/"))
    await asyncio.sleep(0.2)
    numbers = itertools.count(1)
    while True:
        holders = [next(streams) for _ in range(80)]
        for stream in holders:
            yield frame(HEADERS, END_HEADERS, stream, call("/holdfast.v1.Caches/Hold"))
        for turn in range(20):
            for stream in holders:
                asked = [holdfast_pb2.CacheHoldRequest(number=next(numbers)) for _ in range(10)]
                if not turn:
                    asked[0].key, asked[0].range_end = b"c/", b"c0"
                yield b"".join(frame(DATA, 0, stream, framed(request.SerializeToString())) for request in asked)
            for number in range(2000):
                yield ask(PUT, rpc_pb2.PutRequest(key=b"c/%d" % number))
            await asyncio.sleep(0.1)
        for stream in holders:
            yield frame(RST_STREAM, 0, stream, b"\x00\x00\x00\x08")


def _chunked(path: bytes, first: bytes, rest: bytes) -> Callable[[], Bytes]:
    async def chunks() -> Bytes:
        yield b"POST %s HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" % path
        yield b"%x\r\n%s\r\n" % (len(first), first)
        while True:
            yield b"%x\r\n%s\r\n" % (len(rest), rest) * 100
            await asyncio.sleep(0.005)

    return chunks


ATTACKS: dict[str, Callable[[], Bytes]] = {
    "settings-windows": settings_windows,
    "window-updates": window_updates,
    "half-open": half_open,
    "slow-bodies": slow_bodies,
    "long-paths": long_paths,
    "calls-and-resets": calls_and_resets,
    "future-tokens": future_tokens,
    "nested-pairs": nested_pairs,
    "many-rows": many_rows,
    "past-watches": past_watches,
    "cache-leases": cache_leases,
    "chunked-put": _chunked(b"/v3/kv/put", b'{"key":"Zm9v","value":"' + b"A" * 1_500_000, b"A"),
    "chunked-watch": _chunked(b"/v3/watch", b'{"create_request":{"key":"' + b"A" * 400_000, b"A"),
}


async def attack(name: str, port: int, seconds: float) -> int:
    """Over one connection at a time, again when it is ended. Returns how many connections that were."""
    until, connections = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        connections += 1
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.monotonic()):
                await _once(name, port)
        await asyncio.sleep(0.05)
    return connections


async def _once(name: str, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ended = asyncio.ensure_future(_read_all(reader))
    try:
        async for data in ATTACKS[name]():
            if ended.done():
                return
            writer.write(data)
            await writer.drain()
    finally:
        ended.cancel()
        writer.transport.abort()


async def _read_all(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1 << 18):
            pass


if __name__ == "__main__":
    print(asyncio.run(attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
