"""What no well-behaved client sends: randomly malformed frames and messages, floods, half-open and slow connections.

    python -m tests.fuzz.hostile SECONDS [SEED]        (or `make fuzz SECONDS=600`)

A real server of one member takes it all. Meanwhile a well-behaved client writes and reads what it wrote; in the end the
server has to run, its log must hold no error of its own, and no answer may have been "internal error".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import Message
from holdfast import client
from holdfast.front.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    literal,
    window_update,
)
from holdfast.front.http2.grpc import framed
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster, Process, rss_mib

CONNECTIONS = 24
UNEXPLAINED_MIB = 16.0
WORDS = [b"", b"a", b"\x00", b"\xff", b"key", b"k" * 300, b"v" * 70_000]
NUMBERS = [0, 1, -1, 2, 7, 101, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63)]
# Requests that change the membership are sent only malformed: a valid one would be executed.
RARE = ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote", "AuthEnable", "Snapshot", "Defragment")


def _methods() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for service, names in {
        "KV": ("Range", "Put", "DeleteRange", "Txn"),
        "Lease": ("LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"),
        "Cluster": ("MemberList", "MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"),
        "Maintenance": ("Alarm", "Status", "Hash", "HashKV", "MoveLeader", "Downgrade", "Snapshot", "Defragment"),
    }.items():
        for name in names:
            found[f"/etcdserverpb.{service}/{name}"] = getattr(rpc_pb2, f"{name}Request")
    found["/etcdserverpb.KV/Compact"] = rpc_pb2.CompactionRequest
    found["/etcdserverpb.Watch/Watch"] = rpc_pb2.WatchRequest
    for name in ("UserAdd", "UserGet", "UserList", "RoleAdd", "RoleGet", "RoleGrantPermission", "UserGrantRole"):
        found[f"/etcdserverpb.Auth/{name}"] = getattr(rpc_pb2, f"Auth{name}Request")
    found["/etcdserverpb.Auth/AuthEnable"] = rpc_pb2.AuthEnableRequest
    found["/etcdserverpb.Auth/Authenticate"] = rpc_pb2.AuthenticateRequest
    found["/holdfast.v1.Session/Open"] = holdfast_pb2.SessionOpenRequest
    found["/holdfast.v1.Keys/PutSequential"] = holdfast_pb2.PutSequentialRequest
    found["/holdfast.v1.Edge/Follow"] = holdfast_pb2.FollowRequest
    return found


METHODS = _methods()


def message(chance: random.Random, kind: type[Message], depth: int = 3) -> Message:
    """One with some fields set to anything that fits them."""
    made = kind()
    for field in made.DESCRIPTOR.fields:
        if chance.random() < 0.5:
            continue
        count = chance.choice([1, 1, 2, 5, 200]) if field.is_repeated else 1
        if field.message_type is not None:
            if depth and field.message_type.GetOptions().map_entry is False:
                inner = message(chance, _class(made, field), depth - 1)
                if field.is_repeated:
                    getattr(made, field.name).extend([inner] * min(count, 5))
                else:
                    getattr(made, field.name).CopyFrom(inner)
            continue
        values = [_scalar(chance, field) for _ in range(count)]
        with contextlib.suppress(ValueError, TypeError):  # out of the field's range
            if field.is_repeated:
                getattr(made, field.name).extend(values)
            else:
                setattr(made, field.name, values[0])
    return made


def _class(made: Message, field: object) -> type[Message]:
    probe = getattr(made, field.name)  # type: ignore[attr-defined]
    return type(probe.add()) if field.is_repeated else type(probe)  # type: ignore[attr-defined]


def _scalar(chance: random.Random, field: object) -> object:
    kind = field.cpp_type  # type: ignore[attr-defined]
    if kind == field.CPPTYPE_STRING:  # type: ignore[attr-defined]
        word = chance.choice(WORDS)
        return word if field.type == field.TYPE_BYTES else word.decode("latin-1")  # type: ignore[attr-defined]
    if kind == field.CPPTYPE_BOOL:  # type: ignore[attr-defined]
        return chance.random() < 0.5
    return chance.choice(NUMBERS)


def bend(chance: random.Random, data: bytes) -> bytes:
    """The same with something wrong."""
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        how = chance.randrange(5)
        if how == 0:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif how == 1:
            data = data[:at]
        elif how == 2:
            data = data[:at] + chance.randbytes(chance.randrange(1, 20)) + data[at:]
        elif how == 3:
            data = data[:at] + data[at + chance.randrange(1, 10) :]
        else:
            data = data + data[at : at + 100]
    return data


def headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b"content-type", b"application/grpc")]
    return b"".join(literal(name, value) for name, value in [*fields, (b"te", b"trailers"), *more])


class Hostile:
    """One hostile client: a connection, some mischief, the end; again and again."""

    def __init__(self, port: int, chance: random.Random, seen: Counter[str]) -> None:
        self._port = port
        self._chance = chance
        self._seen = seen
        self._kinds: list[Callable[[], bytes]] = [
            self._calls,
            self._calls,
            self._bent_calls,
            self._bent_messages,
            self._frames,
            self._flood,
            self._resets,
            self._http1,
            self._json,
            self._noise,
        ]

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            kind = self._chance.choice(self._kinds)
            self._seen[kind.__name__.strip("_")] += 1
            with contextlib.suppress(OSError, TimeoutError):
                await self._once(kind())

    async def _once(self, data: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            manner = self._chance.randrange(6)
            if manner == 0:  # byte by byte
                for at in range(0, min(len(data), 400), 7):
                    writer.write(data[at : at + 7])
                    await asyncio.sleep(0)
            else:
                writer.write(data)
            if manner == 1:
                writer.transport.abort()
                return
            if manner == 2:  # never reads, stays a while
                await asyncio.sleep(self._chance.random())
                return
            if manner == 3:
                with contextlib.suppress(OSError):
                    writer.write_eof()
            answer = b""
            async with asyncio.timeout(self._chance.random() * 0.5):
                while more := await reader.read(1 << 16):
                    answer = (answer + more)[-(1 << 20) :]
                    if b"internal error" in answer:
                        self._seen["INTERNAL ERROR"] += 1
                        answer = b""
        finally:
            writer.close()

    # ---- mischief ------------------------------------------------------------------------------------------

    def _hello(self) -> bytes:
        return PREFACE + frame(SETTINGS, 0, 0) + window_update(0, self._chance.choice([1, 1 << 20, (1 << 31) - 70_000]))

    def _request(self, stream: int, body: bytes, path: str) -> bytes:
        chance = self._chance
        more = [
            (b"grpc-timeout", chance.choice([b"1S", b"0n", b"99999999H", b"x"])),
            (b"token", chance.choice([b"abc.1", b"\xff\xfe", b"a" * 5000, b".99999999999999999999"])),
            (b"hasleader", b"true"),
            (b"client-api-version", chance.choice([b"3.6", b"\xff"])),
            (b"holdfast-session", b"1"),
            (b"grpc-encoding", chance.choice([b"gzip", b"snappy"])),
        ]
        block = headers(path.encode(), *chance.sample(more, chance.randrange(3)))
        out = frame(HEADERS, END_HEADERS, stream, block)
        data = framed(body) if chance.random() < 0.9 else b"\x01" + framed(body)[1:]
        for at in range(0, len(data), 16_000):
            last = at + 16_000 >= len(data)
            out += frame(DATA, END_STREAM if last and chance.random() < 0.8 else 0, stream, data[at : at + 16_000])
        return out

    def _pick(self) -> str:
        while True:
            path = self._chance.choice(list(METHODS))
            if not path.endswith(RARE) or self._chance.random() < 0.05:
                return path

    def _calls(self) -> bytes:
        out = self._hello()
        for number in range(self._chance.randrange(1, 20)):
            path = self._pick()
            if path.endswith(("MemberAdd", "AuthEnable")):
                continue
            out += self._request(2 * number + 1, message(self._chance, METHODS[path]).SerializeToString(), path)
        return out

    def _bent_messages(self) -> bytes:
        out = self._hello()
        for number in range(self._chance.randrange(1, 20)):
            path = self._pick()
            if path.endswith("AuthEnable"):
                continue
            body = bend(self._chance, message(self._chance, METHODS[path]).SerializeToString())
            out += self._request(2 * number + 1, body, path)
        return out

    def _bent_calls(self) -> bytes:
        return bend(self._chance, self._calls())

    def _frames(self) -> bytes:
        out = self._hello()
        for _ in range(self._chance.randrange(1, 60)):
            kind, flags = self._chance.randrange(12), self._chance.randrange(256)
            size = self._chance.choice([0, 1, 4, 5, 8, 9, 100])
            out += frame(kind, flags, self._chance.randrange(8), self._chance.randbytes(size))
        return out

    def _flood(self) -> bytes:
        kind = self._chance.choice([SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, DATA])
        return self._hello() + frame(kind, 0, 0, b"\x00\x00\x00\x01" + b"\x00" * (4 if kind == PING else 0)) * 20_000

    def _resets(self) -> bytes:
        block = headers(b"/etcdserverpb.KV/Range")
        cancel = b"\x00\x00\x00\x08"
        streams = range(1, 2 * self._chance.randrange(1, 6000), 2)
        asked = (frame(HEADERS, END_HEADERS, id, block) + frame(RST_STREAM, 0, id, cancel) for id in streams)
        return self._hello() + b"".join(asked)

    def _http1(self) -> bytes:
        line = self._chance.choice(
            [b"GET /health", b"POST /v3/kv/range", b"GET /metrics", b"BREW /pot", b"OPTIONS /v3/watch"]
        )
        head = (
            line
            + b" HTTP/1.1\r\nhost: h\r\ncontent-length: "
            + self._chance.choice([b"0", b"5", b"-1", b"99999999999"])
        )
        return bend(self._chance, head + b"\r\n\r\n{}") if self._chance.random() < 0.7 else head + b"\r\n" * 3

    def _json(self) -> bytes:
        bodies = [
            b"{}",
            b"[]",
            b"{" * 5000,
            b'{"key": 1}',
            b'{"key":"YQ=="}',
            b'{"create_request":{"key":"YQ=="}}',
            b"\xff",
        ]
        path = self._chance.choice([b"kv/range", b"kv/put", b"watch", b"lease/keepalive", b"kv/txn", b"nothing"])
        body = self._chance.choice(bodies)
        return b"POST /v3/%s HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % (path, len(body)) + body

    def _noise(self) -> bytes:
        return self._chance.randbytes(self._chance.randrange(1, 3000))


async def _well_behaved(cluster: LocalCluster, until: float, slowest: list[float]) -> int:
    """A client that reads what it writes, whatever the others do. Returns the number of rounds."""
    rounds = 0
    async with client.connect(cluster.endpoints, timeout=20.0) as hf:
        while time.monotonic() < until:
            began = time.monotonic()
            await _disarm(hf)  # the hostile ones may raise alarms: nobody forbids it without users
            try:
                await hf.put("/well-behaved", str(rounds))
            except client.Refused as error:
                if "database space" in str(error) or "corrupt" in str(error):
                    continue  # raised again since
                raise
            found = await hf.get("/well-behaved")
            # They may delete everything; what is there has to be ours.
            assert found is None or found.value == str(rounds).encode(), found
            slowest.append(time.monotonic() - began)
            assert slowest[-1] < 10, f"the well-behaved client waited {slowest[-1]:.1f} s"
            rounds += 1
    return rounds


async def _disarm(hf: client.Client) -> None:
    path = "/etcdserverpb.Maintenance/Alarm"
    alarms = await hf.connection.call(path, rpc_pb2.AlarmRequest(), rpc_pb2.AlarmResponse, idempotent=True)
    for alarm in alarms.alarms:
        request = rpc_pb2.AlarmRequest(
            action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm
        )
        await hf.connection.call(path, request, rpc_pb2.AlarmResponse, idempotent=True)


async def attack(directory: Path, seconds: float, seed: int) -> str:
    """Returns a summary. Raises AssertionError if the server did anything wrong."""
    cluster = LocalCluster(directory, voters=1)
    cluster.start()
    (process,) = cluster.voters.values()
    try:
        await cluster.wait_ready()
        assert process.running is not None
        pid = process.running.pid
        chance, seen, slowest = random.Random(seed), Counter[str](), list[float]()
        first = {**await _memory_mib(process.port), "resident": rss_mib(pid)}
        until = time.monotonic() + seconds
        hostile = [Hostile(process.port, random.Random(chance.random()), seen).run(until) for _ in range(CONNECTIONS)]
        sampling = asyncio.ensure_future(_sample(process, until))
        rounds, *_ = await asyncio.gather(_well_behaved(cluster, until, slowest), *hostile)
        samples = await sampling
        assert process.running.poll() is None, f"the server ended\n{process.tail(50)}"
        log = process.log.read_text(errors="replace")
        bad = [line for line in log.splitlines() if "Traceback" in line or " CRITICAL " in line]
        assert not bad, "\n".join([*bad[:5], process.tail(60)])
        assert not seen["INTERNAL ERROR"], process.tail(60)
        slowest.sort()
        # A leak is memory that grows and that nothing accounts for: two connections a second that stay would show.
        grown = _unexplained(samples[-1]) - _unexplained(first)
        assert grown < UNEXPLAINED_MIB, f"{grown:.1f} MiB more are allocated, nothing says for what\n{_table(samples)}"
        return (
            f"seed {seed}, {seconds:.0f} s: {sum(seen.values()):,} attacks ({dict(seen.most_common())}); the "
            f"well-behaved client did {rounds:,} rounds, the slowest {slowest[-1] * 1e3:.0f} ms; memory in MiB, before "
            f"and then ten times:\n{_table([first, *samples])}"
        )
    except (client.ClientError, AssertionError) as error:
        raise AssertionError(f"{error}\n{process.tail(80)}") from error
    finally:
        cluster.kill()


async def _memory_mib(port: int) -> dict[str, float]:
    """Where the server says its memory goes, by part."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    found = re.findall(r'^holdfast_memory_bytes\{part="(\w+)"\} (\S+)$', page, re.MULTILINE)
    return {part: float(value) / (1 << 20) for part, value in found}


def _unexplained(memory: dict[str, float]) -> float:
    """What is allocated and none of the parts, all of which are bounded (docs/performance.md)."""
    return memory["allocated"] - sum(size for part, size in memory.items() if part not in _TOTALS)


_TOTALS = ("allocated", "free", "resident")


async def _sample(process: Process, until: float) -> list[dict[str, float]]:
    """Ten times until then: where the memory goes, and what is resident."""
    assert process.running is not None
    samples = []
    pause = (until - time.monotonic()) / 10
    while time.monotonic() < until - pause / 2:
        await asyncio.sleep(pause)
        samples.append({**await _memory_mib(process.port), "resident": rss_mib(process.running.pid)})
    return samples


def _table(samples: list[dict[str, float]]) -> str:
    """A line for each part, a column for each sample."""
    rows = {name: [sample[name] for sample in samples] for name in samples[0]}
    rows["unexplained"] = [_unexplained(sample) for sample in samples]
    return "\n".join(f"{name:>14}" + "".join(f"{value:6.1f}" for value in values) for name, values in rows.items())


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory(prefix="holdfast-fuzz-") as directory:
        print(asyncio.run(attack(Path(directory), seconds, seed)))


if __name__ == "__main__":
    main()
