"""Members and replicas of the version before, beside those of this checkout: see version_0_1/README.md."""

from __future__ import annotations

import asyncio
import urllib.request
import zipfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast import client
from holdfast_lab.processes import LocalCluster, Process, free_ports

WHEEL = Path(__file__).parent / "version_0_1" / "holdfast-0.1.0-py3-none-any.whl"
OLD, NEW = "0.1.0", "0.2.0"  # versions of the cluster


def unpacked(place: Path) -> Path:
    """The old program, in `place`."""
    if not place.exists():
        with zipfile.ZipFile(WHEEL) as wheel:
            wheel.extractall(place)
    return place


class MixedCluster(LocalCluster):
    """Three voters of the old program, until they are upgraded."""

    def __init__(self, directory: Path, program: Path, extra: Iterable[str] = ()) -> None:
        super().__init__(directory, extra=extra)
        self.program = program
        for process in self.voters.values():
            self.downgrade(process)

    def downgrade(self, process: Process) -> Process:
        """Its next start is of the old program."""
        process.environment = {"PYTHONPATH": str(self.program), "PYTHONSAFEPATH": "1"}
        return process

    def upgrade(self, process: Process) -> Process:
        """Its next start is of the program of this checkout."""
        process.environment = {}
        return process

    def is_old(self, process: Process) -> bool:
        return bool(process.environment)

    def replica(self, name: str, of: Process, *, old: bool) -> Process:
        """An edge replica of everything below /, not started."""
        (port,) = free_ports(1)
        arguments = [
            "edge",
            f"--name={name}",
            f"--data-dir={self.directory / name}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--endpoints={of.endpoint}",
            "--prefix=/",
        ]
        process = Process(name, arguments, self.directory / f"{name}.log", port)
        return self.downgrade(process) if old else process


async def answers(process: Process, who: tuple[str, str] = ("", "")) -> None:
    """Until a linearizable read is answered there."""
    async with client.connect(process.endpoint, timeout=30, user=who[0], password=who[1]) as hf:
        await hf.get("ready?")


async def cluster_version(process: Process, who: tuple[str, str] = ("", "")) -> str:
    """The version of the cluster that a member of this checkout's program says."""
    async with client.connect(process.endpoint, timeout=10, user=who[0], password=who[1]) as hf:
        return (await hf.describe()).cluster_version


async def reaches_version(
    processes: Iterable[Process], version: str, who: tuple[str, str] = ("", ""), seconds: float = 20
) -> None:
    async with asyncio.timeout(seconds):
        for process in processes:
            while await cluster_version(process, who) != version:
                await asyncio.sleep(0.05)


async def lead(cluster: LocalCluster, wanted: Process, who: tuple[str, str] = ("", "")) -> None:
    """Have `wanted` lead."""
    async with client.connect(wanted.endpoint, timeout=10, user=who[0], password=who[1]) as hf:
        target = (await hf.describe()).member_id
    async with asyncio.timeout(30):
        while (leader := await cluster.leader()) is not wanted:
            async with client.connect(leader.endpoint, timeout=5, user=who[0], password=who[1]) as hf:
                try:
                    await hf.move_leader(target)
                except client.ClientError:
                    await asyncio.sleep(0.1)


def metrics(process: Process) -> str:
    with urllib.request.urlopen(f"http://{process.endpoint}/metrics", timeout=10) as page:  # loopback
        return str(page.read(), "utf-8")


async def agree(cluster: LocalCluster, who: tuple[str, str] = ("", "")) -> None:
    """All members have the same history up to the same revision."""
    async with client.connect(cluster.endpoints, timeout=20, user=who[0], password=who[1]) as hf:
        revision = (await hf.range("ready?")).revision
        hashes = {}
        for process in cluster.voters.values():
            async with client.connect(process.endpoint, timeout=20, user=who[0], password=who[1]) as one:
                await one.get("ready?")  # it has applied what was acknowledged
            found = await hf.hash_kv(process.endpoint, revision)
            hashes[process.name] = (found.hash, found.compact_revision)
    assert len(set(hashes.values())) == 1, hashes


class Traffic:
    """A writer of distinct keys and a watcher of them, that go on through whatever happens."""

    def __init__(self, hf: client.Client) -> None:
        self._hf = hf
        self._stop = asyncio.Event()
        self.acknowledged: dict[bytes, int] = {}  # key -> revision
        self.unknown: set[bytes] = set()  # no answer: done or not
        self.seen: list[tuple[int, bytes]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        first = (await self._hf.range("/w/", prefix=True)).revision + 1
        watching = asyncio.ensure_future(self._watch(first))
        writing = asyncio.ensure_future(self._write())
        try:
            yield self
            self._stop.set()
            await writing
            last = (await self._hf.put("/w/last", "")).revision
            async with asyncio.timeout(30):
                await watching
            await self._check(last)
        finally:
            writing.cancel()
            watching.cancel()

    async def some_more(self, count: int = 20) -> None:
        """Until `count` writes more are acknowledged."""
        enough = len(self.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.acknowledged) < enough:
                await asyncio.sleep(0.02)

    async def _write(self) -> None:
        n = 0
        while not self._stop.is_set():
            n += 1
            key = b"/w/%06d" % n
            try:
                self.acknowledged[key] = (await self._hf.put(key, key)).revision
            except client.OutcomeUnknown:
                self.unknown.add(key)
            await asyncio.sleep(0.002)

    async def _watch(self, first: int) -> None:
        async for event in self._hf.watch("/w/", prefix=True, start_revision=first):
            if event.kv.key == b"/w/last":
                return
            self.seen.append((event.kv.mod_revision, event.kv.key))

    async def _check(self, last: int) -> None:
        """No acknowledged write is lost, none was done twice, and the watch saw each once and in order."""
        found = {kv.key: kv for kv in (await self._hf.range("/w/", prefix=True, revision=last - 1)).kvs}
        assert {k: found[k].mod_revision if k in found else None for k in self.acknowledged} == self.acknowledged
        assert found.keys() - self.acknowledged.keys() <= self.unknown
        assert {kv.version for kv in found.values()} == {1}, "a write was done twice"
        assert self.seen == sorted((kv.mod_revision, key) for key, kv in found.items())
