"""How a node with an empty volume becomes a member of a cluster. It never forms one by itself.

- static: every listed node mints its id, learns all ids, makes that view durable, and forms when every node has
  confirmed the same view. The cluster id is the hash of token and view, so a node whose volume was wiped cannot form
  again: its new id makes another view, and those that formed refuse it.
- existing: MemberAdd minted an id for our peer URL; we claim it, through the log, for our volume.
- managed: an operator calls Form on one node, and adds the others as learners (`member.node`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from hashlib import sha256
from pathlib import Path

from google.protobuf.message import DecodeError

from holdfast.member.frames import LOWEST_PROTOCOL, PROTOCOL, ProtocolError, connect, frame, read_frame, shown
from holdfast.proto import raft_pb2
from holdfast.storage.damage import Damaged
from holdfast.storage.sealed import SealedFile
from holdfast.tls import PeerTls

log = logging.getLogger("holdfast.bootstrap")

RETRY_SECONDS = 0.2
EMPTY = (
    "if this node belongs to a cluster already, remove this file: it is needed no more; if the founding is not over, "
    "empty the volumes of all founders"
)
TIMEOUT_SECONDS = 3.0


class BootstrapRefused(Exception):
    """This node cannot join in the configured way. The text says why and what to do."""


def view_id(token: str, ids: dict[str, int]) -> int:
    """The cluster id: a hash of token and view."""
    text = json.dumps([token, sorted((name, f"{id:016x}") for name, id in ids.items())])
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1 or 1


class Founding:
    """This node's part in a static bootstrap."""

    def __init__(
        self, directory: Path, *, name: str, volume_id: int, token: str, peers: dict[str, str], cluster_id: int = 0
    ) -> None:
        self._file = SealedFile(directory / "founding.json")
        self.name = name
        self.token = token
        self.peers = peers
        self.volume_id = volume_id
        self.cluster_id = cluster_id
        self.ids: dict[str, int] = {name: volume_id}
        self.confirmed = 0
        view = self._file.read(f"which nodes found the cluster with this one is not known; {EMPTY}")
        if view is not None:
            try:
                self.ids = {n: int(i, 16) for n, i in view.items()}
            except (TypeError, ValueError) as error:
                raise Damaged(f"{self._file.path} holds no view of founders, but {view}; {EMPTY}") from error
            self.confirmed = view_id(token, self.ids)
        self._agreeing: set[str] = set()
        self._said = ""

    def view(self) -> raft_pb2.FoundingView:
        return raft_pb2.FoundingView(
            token=self.token,
            name=self.name,
            volume_id=self.volume_id,
            peers=self.peers,
            cluster_id=self.cluster_id,
            confirmed=self.confirmed,
        )

    def learn(self, other: raft_pb2.FoundingView) -> None:
        """Process another node's view. Raises BootstrapRefused if we can never form with it."""
        if other.name not in self.peers:
            self._say(f"a node named {other.name!r} asks to found with us; it is not in --initial-cluster")
            return
        if other.token != self.token or dict(other.peers) != self.peers:
            self._say(
                f"{other.name} was started with another --initial-cluster or --initial-cluster-token; waiting for it "
                "to be corrected"
            )
            return
        if other.cluster_id and other.cluster_id != self.confirmed:
            raise BootstrapRefused(
                f"{other.name} already belongs to cluster {other.cluster_id:x}, and this volume is empty. A lost "
                "volume is not founded again: remove the old member, add a new one, and start with "
                "--initial-cluster-state existing"
            )
        if not other.volume_id or any(id == other.volume_id and n != other.name for n, id in self.ids.items()):
            self._say(f"{other.name} says that its volume is {other.volume_id:x}, which is 0 or another node's")
            return
        known = self.ids.get(other.name)
        if self.confirmed and known != other.volume_id:
            self._say(
                f"{other.name} has the volume {other.volume_id:x}, but {known:x} took part in this founding; "
                "start it with that volume, or empty the volumes of all founders"
            )
            return
        self.ids[other.name] = other.volume_id
        if self.confirmed and self.confirmed in (other.confirmed, other.cluster_id):
            self._agreeing.add(other.name)

    def confirm(self) -> None:
        """Once all ids are known, make the view durable; from then on this node can form only that cluster."""
        if not self.confirmed and set(self.ids) == set(self.peers):
            self._file.write({n: f"{i:x}" for n, i in self.ids.items()})
            self.confirmed = view_id(self.token, self.ids)

    @property
    def agreed(self) -> bool:
        return self.confirmed != 0 and self._agreeing == set(self.peers) - {self.name}

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            log.warning("%s", line)

    async def run(self, tls: PeerTls | None) -> None:
        """Ask the other nodes for their views until all agree."""
        waiting: set[str] = set()
        while True:
            self.confirm()
            missing = set()
            for name, url in self.peers.items():
                if name == self.name:
                    continue
                try:
                    self.learn(await self._ask(url, tls))
                except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError, DecodeError):
                    missing.add(name)
            self.confirm()
            if self.agreed:
                return
            if missing and missing != waiting:
                log.info("founding waits for %s", ", ".join(sorted(missing)))
            waiting = missing
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask(self, url: str, tls: PeerTls | None) -> raft_pb2.FoundingView:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await connect(url, tls)
            try:
                writer.write(
                    frame(
                        raft_pb2.Hello(
                            protocol=LOWEST_PROTOCOL, speaks=PROTOCOL, volume_id=self.volume_id, purpose="founding"
                        )
                    )
                )
                writer.write(frame(self.view()))
                return raft_pb2.FoundingView.FromString(await read_frame(reader, 1 << 20))
            finally:
                writer.close()


async def claim(volume_id: int, own_urls: list[str], peers: list[str], tls: PeerTls | None) -> raft_pb2.ClaimReply:
    """Claim the member id that was minted for one of our peer URLs. Asks `peers` until one grants it."""
    said = ""
    while True:
        for url in peers:
            if url in own_urls:
                continue
            try:
                reply = await _claim_at(url, volume_id, own_urls, tls)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError, DecodeError):
                continue
            if not reply.refused:
                return reply
            if reply.refused != said:
                said = reply.refused
                log.warning("%s: %s", url, shown(reply.refused))
        await asyncio.sleep(5 * RETRY_SECONDS)


async def _claim_at(url: str, volume_id: int, own_urls: list[str], tls: PeerTls | None) -> raft_pb2.ClaimReply:
    async with asyncio.timeout(10.0):
        reader, writer = await connect(url, tls)
        try:
            writer.write(
                frame(raft_pb2.Hello(protocol=LOWEST_PROTOCOL, speaks=PROTOCOL, volume_id=volume_id, purpose="claim"))
            )
            writer.write(frame(raft_pb2.ClaimRequest(volume_id=volume_id, peer_urls=own_urls)))
            return raft_pb2.ClaimReply.FromString(await read_frame(reader, 1 << 20))
        finally:
            writer.close()


def _hello(volume_id: int, purpose: str) -> raft_pb2.Hello:
    return raft_pb2.Hello(protocol=LOWEST_PROTOCOL, speaks=PROTOCOL, volume_id=volume_id, purpose=purpose)
