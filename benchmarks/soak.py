"""Half an hour of everything at once against three members: does memory stay where it is, and does anything go wrong?

    make soak SECONDS=1800

Writes, reads, transactions, leases that are kept alive and leases that end, JSON over HTTP, and above all watches that
come and go: cancelled, closed, and torn off with their connection. History is compacted every minute. Prints the memory
of each member every minute, and counts errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio
from holdfast import client
from holdfast.front.http2.frames import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, frame, literal
from holdfast.front.http2.grpc import framed
from holdfast.proto import rpc_pb2
from holdfast_lab.processes import LocalCluster, rss_mib

WORKERS = 12
PAUSE_SECONDS = 0.02  # of each worker between two things
_WATCH = "/etcdserverpb.Watch/Watch"


class Worker:
    """Does one thing after the other, at random."""

    def __init__(self, endpoints: list[str], number: int, done: Counter[str], errors: Counter[str]) -> None:
        self._endpoints = endpoints
        self._chance = random.Random(number)
        self._done = done
        self._errors = errors
        self._number = number

    async def run(self, until: float) -> None:
        kinds = [self._write, self._write, self._read, self._txn, self._lease, self._watch, self._tear, self._json]
        endpoints = self._chance.sample(self._endpoints, len(self._endpoints))
        async with client.connect(endpoints, timeout=10.0) as hf:
            while time.monotonic() < until:
                kind = self._chance.choice(kinds)
                try:
                    await kind(hf)
                    self._done[kind.__name__.strip("_")] += 1
                except (client.ClientError, grpc.RpcError, OSError, TimeoutError, AssertionError) as error:
                    self._errors[f"{kind.__name__}: {type(error).__name__}: {error}"[:200]] += 1
                await asyncio.sleep(self._chance.random() * 2 * PAUSE_SECONDS)

    def _key(self) -> str:
        return f"/soak/{self._chance.randrange(2000):04d}"

    async def _write(self, hf: client.Client) -> None:
        await hf.put(self._key(), "x" * self._chance.choice([10, 100, 1000, 20_000]))

    async def _read(self, hf: client.Client) -> None:
        await hf.range(
            "/soak/", prefix=True, limit=self._chance.choice([1, 50]), serializable=self._chance.random() < 0.5
        )

    async def _txn(self, hf: client.Client) -> None:
        key = self._key()
        await hf.txn().if_(hf.key(key).version == 0).then(hf.op.put(key, "new")).else_(hf.op.delete(key)).commit()

    async def _lease(self, hf: client.Client) -> None:
        """Half of them are left to end by themselves."""
        lease = await hf.lease(self._chance.randrange(2, 10))
        await hf.put(f"/soak/leased/{lease.id}", "x", lease=lease.id)
        if self._chance.random() < 0.5:
            await lease.revoke()
        else:
            await lease.release()

    async def _json(self, hf: client.Client) -> None:
        host, port = self._chance.choice(self._endpoints).split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            body = b'{"key": "L3NvYWsv", "range_end": "L3NvYWsw", "limit": 5}'
            head = f"POST /v3/kv/range HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await asyncio.wait_for(reader.read(), 10)
            assert "header" in json.loads(answer.split(b"\r\n\r\n", 1)[1]), answer[:100]
        finally:
            writer.close()

    async def _watch(self, hf: client.Client) -> None:
        """Some watches on a stream of its own: made, cancelled, perhaps told something, closed."""
        async with grpc.aio.insecure_channel(self._chance.choice(self._endpoints)) as channel:
            call = channel.stream_stream(
                _WATCH,
                request_serializer=rpc_pb2.WatchRequest.SerializeToString,
                response_deserializer=rpc_pb2.WatchResponse.FromString,
            )()
            count = self._chance.randrange(1, 20)
            for _ in range(count):
                create = rpc_pb2.WatchCreateRequest(key=b"/soak/", range_end=b"/soak0", prev_kv=True)
                await call.write(rpc_pb2.WatchRequest(create_request=create))
            created = 0
            while created < count:
                answer = await asyncio.wait_for(call.read(), 10)
                assert not isinstance(answer, type(grpc.aio.EOF))
                created += answer.created
            for id in range(0, count, 2):
                cancel = rpc_pb2.WatchCancelRequest(watch_id=id)
                await call.write(rpc_pb2.WatchRequest(cancel_request=cancel))
            if self._chance.random() < 0.5:
                await call.done_writing()
            call.cancel()

    async def _tear(self, hf: client.Client) -> None:
        """A connection with a watch that is dropped without a word, or never reads."""
        host, port = self._chance.choice(self._endpoints).split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        fields = {b":method": b"POST", b":scheme": b"http", b":path": _WATCH.encode()}
        fields |= {b"content-type": b"application/grpc", b"te": b"trailers"}
        block = b"".join(literal(name, value) for name, value in fields.items())
        create = rpc_pb2.WatchCreateRequest(key=b"/soak/", range_end=b"/soak0")
        body = framed(rpc_pb2.WatchRequest(create_request=create).SerializeToString())
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1, body))
        await asyncio.wait_for(reader.readexactly(9), 10)
        await asyncio.sleep(self._chance.random())
        writer.transport.abort()


async def soak(seconds: float, directory: Path) -> None:
    cluster = LocalCluster(directory, extra=["--auto-compaction-retention=1m", "--quota-backend-bytes=-1"])
    cluster.start()
    try:
        await cluster.wait_ready()
        pids = {p.name: p.running.pid for p in cluster.voters.values() if p.running}
        done, errors = Counter[str](), Counter[str]()
        until = time.monotonic() + seconds
        workers = [Worker(cluster.endpoints, n, done, errors).run(until) for n in range(WORKERS)]
        running = asyncio.gather(*workers)
        began = time.monotonic()
        while not running.done():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(running), min(60.0, max(1.0, seconds / 10)))
            memory = ", ".join(f"{name} {rss_mib(pid):.1f}" for name, pid in pids.items())
            total = sum(done.values())
            print(
                f"{time.monotonic() - began:6.0f} s  {total:8,} done  {sum(errors.values())} errors  MiB: {memory}",
                flush=True,
            )
        await running
        print("done:", dict(done.most_common()))
        print("errors:", dict(errors.most_common(20)) or "none")
        for process in cluster.voters.values():
            lines = process.log.read_text(errors="replace").splitlines()
            bad = [line for line in lines if " ERROR " in line or "Traceback" in line or " CRITICAL " in line]
            slow = sum("slow request" in line for line in lines)
            print(f"{process.name}: {len(bad)} errors in its log, {slow} slow requests", *bad[:5], sep="\n  ")
    finally:
        cluster.kill()


def main() -> None:
    seconds = float(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SECONDS", "1800"))
    with tempfile.TemporaryDirectory(prefix="holdfast-soak-") as directory:
        asyncio.run(soak(seconds, Path(directory)))


if __name__ == "__main__":
    main()
