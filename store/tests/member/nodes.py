"""Real nodes in one process: real RocksDB, real logs, real sockets, and links between them that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast.cert_names import CertNames
from holdfast.member.interface import Answer
from holdfast.member.node import Node, NodeConfig
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.types import Settings
from holdfast.storage.identity import DataDirectory
from holdfast.tls import TlsFiles, client_context, server_context
from holdfast_lab.processes import free_ports

ELECTION_MS = 300  # ends of links are noticed after one second, the least there is


class Way:
    """A TCP proxy to one port. Its connections can be cut as by a network: neither side is told. Once healed it carries
    new connections; of those that it lost it knows nothing any more, as a gateway or a new node does not."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepted = 0
        self._target = target
        self._cut = False
        self._carrying: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._drops: tuple[bool, bool] = (False, False)

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        if self._cut:
            return  # accepted by the kernel, never answered
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers.add(forth)
        lost: set[int] = set()
        for number, (source, sink) in enumerate(((reader, forth), (back, writer))):
            task = asyncio.ensure_future(self._carry(source, sink, lost, number))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, lost: set[int], number: int
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if self._cut:
                    lost |= {0, 1}
                elif self._drops[number]:
                    lost.add(number)
                if number not in lost:
                    sink.write(data)
                    await sink.drain()
        if number not in lost and not self._cut:
            sink.close()

    def cut(self) -> None:
        self._cut = True

    def drop(self, forth: bool = False, back: bool = False) -> None:
        """Cut one direction only."""
        self._drops = (forth, back)

    def heal(self) -> None:
        self._cut = False
        self._drops = (False, False)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._carrying):
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()


class Nodes:
    """A cluster of nodes; each is reached by its peers through its own `Way`."""

    def __init__(
        self, directory: Path, count: int = 3, tls: TlsFiles | None = None, names: CertNames | None = None
    ) -> None:
        ports = free_ports(count)
        self.names = [f"m{n}" for n in range(count)]
        self.ways = {name: Way(port) for name, port in zip(self.names, ports, strict=True)}
        self.ports = dict(zip(self.names, ports, strict=True))
        self.nodes: dict[str, Node] = {}
        self.election_ms = ELECTION_MS
        self._directory = directory
        self._tls = tls
        self._names = names or CertNames()

    async def start(self) -> None:
        for way in self.ways.values():
            await way.open()
        for name in self.names:
            await self.start_one(name)
        await self.until(lambda: self.leader is not None)

    async def start_one(self, name: str) -> Node:
        scheme = "https" if self._tls is not None else "http"
        urls = {n: f"{scheme}://127.0.0.1:{way.port}" for n, way in self.ways.items()}
        config = NodeConfig(
            name=name,
            advertise_peer_urls=(urls[name],),
            advertise_client_urls=(),
            bootstrap="static",
            initial_cluster=urls,
            client_tls=client_context(self._tls, self._names) if self._tls is not None else None,
            server_tls=server_context(self._tls) if self._tls is not None else None,
            settings=Settings(election_ns=self.election_ms * 1_000_000, heartbeat_ns=self.election_ms * 100_000),
        )
        node = self.nodes[name] = Node(DataDirectory(self._directory / name), config)
        await node.transport.listen("127.0.0.1", self.ports[name])
        node.start()
        return node

    @property
    def leader(self) -> str | None:
        """The member that a majority, including itself, takes for the leader."""
        leaders = {name: n.member.core.leader for name, n in self.nodes.items() if n.member is not None}
        for name, node in self.nodes.items():
            if node.member is None or not node.member.core.is_leader:
                continue
            if 2 * sum(leader == node.member.id for leader in leaders.values()) > len(self.names):
                return name
        return None

    def others(self, *names: str | None) -> list[str]:
        return [name for name in self.names if name not in names]

    def id(self, name: str) -> int:
        member = self.nodes[name].member
        assert member is not None
        return member.id

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.02)

    async def put(self, name: str, key: bytes, value: bytes = b"v") -> Answer:
        member = self.nodes[name].member
        assert member is not None
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        member.propose(raft_pb2.Command(put=rpc_pb2.PutRequest(key=key, value=value)), answered.set_result)
        return await answered

    async def put_everywhere(self, key: bytes, names: Sequence[str] | None = None) -> None:
        """Every member accepts a write, and none has stopped."""
        for name in names or self.names:
            answer = await self.put(name, key + name.encode())
            assert answer.error is None, f"{name}: {answer.error}"
        assert not [name for name, node in self.nodes.items() if node.failed.done()]

    async def close(self) -> None:
        await asyncio.gather(*(node.stop(0.0) for node in self.nodes.values()))
        for way in self.ways.values():
            await way.close()


@asynccontextmanager
async def cluster(
    directory: Path,
    count: int = 3,
    tls: TlsFiles | None = None,
    names: CertNames | None = None,
    election_ms: int = ELECTION_MS,
) -> AsyncIterator[Nodes]:
    nodes = Nodes(directory, count, tls, names)
    nodes.election_ms = election_ms
    try:
        await nodes.start()
        yield nodes
    finally:
        await nodes.close()
