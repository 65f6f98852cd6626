"""The transport between members: one long-lived connection each way, with protobuf frames on TCP or TLS.

The first frame is a Hello: before anything else is accepted, both sides check that they belong to the same cluster and
are the members that they are taken for. Messages that cannot be sent are dropped, because Raft sends again.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Collection

from google.protobuf.message import DecodeError

from holdfast.cert_names import CertNames
from holdfast.histogram import FAST, Histogram
from holdfast.member import codec
from holdfast.member.frames import ProtocolError, frame, messages_of, read_frame, write_frame
from holdfast.member.inbound import Door, Inbound, Seldom
from holdfast.member.link import Link, Node
from holdfast.member.pulse import Pulse, notice_silence
from holdfast.proto import raft_pb2
from holdfast.raft.messages import Message, same_append
from holdfast.tls import PeerTls

log = logging.getLogger("holdfast.peer")

MAX_HELLO_BYTES = 64 << 10
STRANGERS_SECONDS = 15.0  # time limit for one request of a node that is not a member yet
PURPOSES_OF_MEMBERS = ("messages", "snapshot")


class Transport:
    """All connections of one member to its peers. A connection is ended when nothing arrives on it for
    `silence_seconds`, which is also the time limit for connecting and the Hello."""

    def __init__(
        self,
        node: Node,
        *,
        client_tls: PeerTls | None,
        server_tls: ssl.SSLContext | None,
        silence_seconds: float = 2.0,
    ) -> None:
        self._node = node
        self._client_tls = client_tls
        self._names = client_tls.names if client_tls is not None else CertNames()
        self._silence = silence_seconds
        self._links: dict[int, Link] = {}
        self._sent: Counter[int] = Counter()  # bytes by member
        self._received: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()  # frames that could not be sent
        self._round_trips: dict[int, Histogram] = {}
        self._door = Door(self._serve, server_tls, silence_seconds)
        self._seldom = Seldom()

    async def listen(self, host: str, port: int) -> None:
        await self._door.listen(host, port)

    @property
    def client_tls(self) -> PeerTls | None:
        return self._client_tls

    def set_peers(self, peers: dict[int, str]) -> None:
        """Keep connections to exactly these members (id to URL)."""
        for member in list(self._links):
            if peers.get(member) != self._links[member].url:
                asyncio.ensure_future(self._links.pop(member).close())
        for member, url in peers.items():
            if member not in self._links:
                self._links[member] = Link(self._node, member, url, self._client_tls, self._silence)

    def shut_out(self, members: Collection[int]) -> None:
        """End the connections of these members; they are told why when they connect again."""
        self._door.shut_out(members)

    def end(self, member: int, why: str) -> None:
        """End the connection on which this member sends, because a message of it was invalid."""
        connection = self._door.of(member, "messages")
        if connection is not None:
            self._complain(connection, why)
            connection.end()

    def send(self, messages: list[Message]) -> None:
        """Send the messages, one frame per receiver. A leader's messages to its followers are often the same, and then
        encoded once."""
        by_member: dict[int, list[Message]] = {}
        for message in messages:
            by_member.setdefault(message.to, []).append(message)
        said: list[Message] = []
        data = b""
        for member, batch in by_member.items():
            link = self._links.get(member)
            if link is None:
                continue
            if not (len(batch) == len(said) and all(map(same_append, batch, said))):
                said = batch
                data = frame(raft_pb2.PeerFrame(messages=[codec.encode(m) for m in batch]))
            if link.send(data):
                self._sent[member] += len(data)
            else:
                self._failed[member] += 1

    @property
    def active_peers(self) -> int:
        """Number of members that we have a connection to."""
        return sum(link.connected for link in self._links.values())

    @property
    def inbound(self) -> int:
        """Number of connections to our peer port."""
        return self._door.count

    def round_trips(self) -> dict[int, Histogram]:
        """Round-trip times in seconds by member; each call adds the current ones."""
        for member, link in self._links.items():
            seconds = link.round_trip()
            if seconds is not None:
                self._round_trips.setdefault(member, Histogram(FAST)).observe(seconds)
        return self._round_trips

    def counts(self) -> dict[str, Counter[int]]:
        """Counters by etcd's metric names, then by member."""
        return {
            "etcd_network_peer_sent_bytes": self._sent,
            "etcd_network_peer_received_bytes": self._received,
            "etcd_network_peer_sent_failures": self._failed,
        }

    async def _serve(self, connection: Inbound) -> None:
        reader, writer = connection.reader, connection.writer
        try:
            async with asyncio.timeout(self._silence):
                hello = raft_pb2.Hello.FromString(await read_frame(reader, MAX_HELLO_BYTES))
            if why := self._names.refusal(writer.get_extra_info("peercert")):
                await self._refuse(connection, hello, raft_pb2.Hello(refused=why))
                return
            if hello.purpose not in PURPOSES_OF_MEMBERS:
                async with asyncio.timeout(STRANGERS_SECONDS):
                    await self._node.serve_other(hello, reader, writer)
                return
            if not await self._greet(connection, hello):
                return
            if hello.purpose == "messages":
                await self._take_messages(connection, hello)
            else:
                await self._node.serve_other(hello, reader, writer)
        except (ProtocolError, DecodeError) as error:
            self._complain(connection, error)
        except asyncio.IncompleteReadError as error:
            log.debug("a connection of %s ended: %s", connection.address, error)

    def _complain(self, connection: Inbound, error: object) -> None:
        who = f"member {connection.member:x}" if connection.member else "an unknown peer"
        self._seldom.warn(
            (connection.address, connection.member),
            "a connection of %s at %s is ended: %s",
            who,
            connection.address,
            error,
        )

    async def _greet(self, connection: Inbound, hello: raft_pb2.Hello) -> bool:
        answer = self._node.hello(hello.from_id, hello.purpose)
        answer.refused = self._node.welcome(hello)
        if answer.refused:
            await self._refuse(connection, hello, answer)
            return False
        write_frame(connection.writer, answer)
        self._door.know(connection, hello.from_id, hello.purpose)
        return True

    async def _refuse(self, connection: Inbound, hello: raft_pb2.Hello, answer: raft_pb2.Hello) -> None:
        write_frame(connection.writer, answer)
        self._seldom.warn(
            (connection.address, answer.refused),
            "%x at %s is refused: %s",
            hello.from_id,
            connection.address,
            answer.refused,
        )
        async with asyncio.timeout(self._silence):
            await connection.writer.drain()

    async def _take_messages(self, connection: Inbound, hello: raft_pb2.Hello) -> None:
        reader, writer, member = connection.reader, connection.writer, hello.from_id
        notice_silence(writer, self._silence)
        pulse = Pulse(writer, self._silence) if hello.speaks >= 2 else None
        heard = pulse.heard if pulse is not None else None
        try:
            while True:
                body = await read_frame(reader, heard=heard)
                if body:
                    self._received[member] += len(body)
                    self._node.received(member, messages_of(body))
        finally:
            if pulse is not None:
                pulse.stop()
                if pulse.silent:
                    log.warning("nothing comes from %x at %s any more", member, connection.address)

    async def close(self) -> None:
        for link in list(self._links.values()):
            await link.close()
        self._links.clear()
        await self._door.close()
