"""The command `demo` (`make run`): three voters and an edge replica as processes, with live output about what happens.

The edge replica reaches the cluster through a small relay in this process, so that it can be cut off and healed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from holdfast import client
from holdfast.cli.errors import fail
from rich.console import Console

from holdfast_lab.processes import LocalCluster, Process, free_ports

console = Console(highlight=False)
PREFIX = "/stores/berlin/"


def say(line: str) -> None:
    console.print(line, soft_wrap=True)


def step(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


class Relay:
    """Forwards TCP connections to one of several targets, until it is cut."""

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._cut = False
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Drop every connection, and every new one."""
        self._cut = True
        for writer in list(self._connections):
            writer.transport.abort()

    def heal(self) -> None:
        self._cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            if self._cut:
                writer.transport.abort()
                return
            upstream = await self._connect()
            if upstream is None:
                return
            self._connections.add(upstream[1])
            await asyncio.gather(self._pump(reader, upstream[1]), self._pump(upstream[0], writer))
        except asyncio.CancelledError:
            pass  # the demonstration ends
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for target in self._targets:
            host, _, port = target.rpartition(":")
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(host, int(port))
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        self._connections.discard(writer)

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()


class Writer:
    """Writes all the time and notes its longest wait between two acknowledged writes."""

    def __init__(self, hf: client.Client) -> None:
        self._hf = hf
        self.acknowledged = 0
        self.longest = 0.0
        self.wrote = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        last = time.monotonic()
        number = 0
        while True:
            number += 1
            with contextlib.suppress(client.ClientError):
                await self._hf.put(f"/counter/{number % 100}", str(number))
                now = time.monotonic()
                self.longest = max(self.longest, now - last)
                last = now
                self.acknowledged += 1
                self.wrote.set()

    async def next_write(self) -> None:
        self.wrote.clear()
        await self.wrote.wait()

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def run() -> None:
    """The whole demonstration; returns after Ctrl-C, with nothing left behind."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    try:
        asyncio.run(_run(directory))
    except (client.ClientError, TimeoutError) as error:
        fail(f"the demonstration failed: {error}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def _started(directory: Path) -> AsyncIterator[tuple[LocalCluster, Process, Relay]]:
    cluster = LocalCluster(directory)
    relay = Relay(cluster.endpoints)
    await relay.start()
    (port,) = free_ports(1)
    edge = Process(
        "berlin",
        [
            "edge",
            "--name=berlin",
            f"--data-dir={directory / 'berlin'}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--endpoints=127.0.0.1:{relay.port}",
            f"--prefix={PREFIX}",
        ],
        directory / "berlin.log",
        port,
    )
    try:
        cluster.start()
        edge.start()
        yield cluster, edge, relay
    finally:
        say("\nstopping …")
        edge.kill()
        cluster.stop()
        await relay.close()


async def _run(directory: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    began = time.monotonic()
    with contextlib.suppress(asyncio.CancelledError):
        async with _started(directory) as (cluster, edge, relay):
            await _show(cluster, edge, relay)
            _hints(cluster, edge, time.monotonic() - began)
            await asyncio.Event().wait()


async def _show(cluster: LocalCluster, edge: Process, relay: Relay) -> None:
    step("1. Three voters and an edge replica, as processes")
    await cluster.wait_ready()
    leader = await cluster.leader()
    for name, process in cluster.voters.items():
        say(f"   {name}  {process.endpoint}{'  leads' if process is leader else ''}")
    say(f"   berlin  {edge.endpoint}  holds {PREFIX}")

    async with (
        client.connect(cluster.endpoints, timeout=15.0) as hf,
        client.connect(edge.endpoint, timeout=15.0) as at_edge,
    ):
        step("2. Configuration, written to the cluster, read and watched at the edge")
        key = PREFIX + "flag"
        put = await hf.put(key, "on")
        say(f"   put {key} = on          revision {put.revision}")
        await _until_at_edge(at_edge, put.revision)
        say(f"   at the edge: {await _read(at_edge, key)}")
        events = at_edge.watch(PREFIX, prefix=True, start_revision=put.revision + 1)
        began = time.monotonic()
        put = await hf.put(key, "off")
        event = await anext(events)
        took = (time.monotonic() - began) * 1000
        say(f"   put {key} = off, and the edge's watch saw {event.kv.value.decode()} {took:.0f} ms later")

        step("3. The leader is killed (kill -9) while somebody writes")
        writer = Writer(hf)
        await writer.next_write()
        began = time.monotonic()
        leader.kill()
        new = await cluster.leader()
        say(f"   {leader.name} is dead; {new.name} leads after {time.monotonic() - began:.2f} s")
        await writer.next_write()
        await writer.stop()
        say(f"   the writer's longest wait was {writer.longest:.2f} s; {writer.acknowledged} writes acknowledged")
        leader.start()
        await cluster.wait_ready()
        say(f"   {leader.name} is back, and has caught up")

        step("4. The edge is cut off")
        relay.cut()
        await _until_disconnected(at_edge)
        missed = await hf.put(key, "while cut off")
        say(f"   put {key} = 'while cut off' at revision {missed.revision}; the edge cannot know")
        say(f"   at the edge: {await _read(at_edge, key)}")
        edge.kill()
        edge.start()
        await _until_serving(at_edge, key)
        say(f"   restarted without a network, it still serves: {await _read(at_edge, key)}")
        relay.heal()
        await _until_at_edge(at_edge, missed.revision)
        event = await anext(events)
        say(f"   healed: {await _read(at_edge, key)}; its watch resumed and saw {event.kv.value.decode()!r}")


async def _read(hf: client.Client, key: str) -> str:
    found = await hf.range(key, serializable=True)
    node = await hf.describe()
    stale = f"at most {node.staleness_ms} ms old" if node.HasField("staleness_ms") else "of unknown age"
    state = "connected" if node.connected else "cut off"
    return f"{found.kvs[0].value.decode()!r} as of revision {found.revision}, {stale}, {state}"


async def _until_at_edge(hf: client.Client, revision: int) -> None:
    async with asyncio.timeout(30):
        while (await hf.describe()).revision < revision:
            await asyncio.sleep(0.02)


async def _until_disconnected(hf: client.Client) -> None:
    async with asyncio.timeout(30):
        while (await hf.describe()).connected:
            await asyncio.sleep(0.02)


async def _until_serving(hf: client.Client, key: str) -> None:
    await hf.range(key, serializable=True)  # the client waits until the replica answers


def _hints(cluster: LocalCluster, edge: Process, seconds: float) -> None:
    endpoints = ",".join(cluster.endpoints)
    say(f"\n[bold]All of this took {seconds:.0f} s. It keeps running until Ctrl-C. Try:[/bold]")
    command = ".venv/bin/holdfast" if Path(".venv/bin/holdfast").exists() else "holdfast"
    say(f"   export HOLDFAST_ENDPOINTS={endpoints}")
    say(f"   {command} put {PREFIX}colour blue")
    say(f"   {command} watch /stores/ --prefix --rev 1")
    say(f"   {command} get {PREFIX} --prefix --serializable --endpoints {edge.endpoint}")
    say(f"   {command} status --endpoints {endpoints},{edge.endpoint}")
    say(f"   etcdctl --endpoints {endpoints} endpoint status -w table")
