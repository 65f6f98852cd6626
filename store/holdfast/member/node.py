"""The life of a node: from an empty volume, to a member of a cluster, to its removal.

A node owns the peer port from the start, and the `Member` once there is one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from google.protobuf.message import DecodeError

from holdfast.machine import Genesis
from holdfast.member import codec
from holdfast.member.bootstrap import BootstrapRefused, Founding, claim
from holdfast.member.disk import found_cluster, join_cluster, open_disk
from holdfast.member.driver import Hooks, Member
from holdfast.member.frames import LOWEST_PROTOCOL, PROTOCOL, ProtocolError, read_frame, write_frame
from holdfast.member.interface import Answer, PeerLost
from holdfast.member.membership import is_url
from holdfast.member.recovery import newest_incarnation
from holdfast.member.snapshots import Snapshots
from holdfast.member.transport import Transport
from holdfast.proto import raft_pb2
from holdfast.raft.types import Settings
from holdfast.status import Code, Refusal, RequestError
from holdfast.storage.identity import DataDirectory
from holdfast.tasks import Tasks
from holdfast.tls import PeerTls
from holdfast.watch.hub import Delivery

log = logging.getLogger("holdfast.node")

MAX_MET = 64  # peers remembered by a node that has no state yet


class State(Enum):
    EMPTY = 0  # belongs to no cluster
    FORMED = 1  # founded a cluster that is not open to clients yet
    MEMBER = 2
    REMOVED = 3


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How this node was started."""

    name: str
    advertise_peer_urls: tuple[str, ...]
    advertise_client_urls: tuple[str, ...]
    bootstrap: str = "managed"  # managed, static or existing
    initial_cluster: dict[str, str] = field(default_factory=dict)
    token: str = "holdfast-cluster"
    settings: Settings = field(default_factory=Settings)
    priority: int = 0  # the voter with the highest is preferred as leader
    max_learners: int = 1
    client_tls: PeerTls | None = None  # for outgoing connections to peers
    server_tls: ssl.SSLContext | None = None


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class NodeHooks:
    """What the node tells the services. All are called on the loop, and none before a member runs."""

    deliver: Callable[[list[Delivery]], None] = _nothing
    turn_ended: Callable[[], None] = _nothing
    member_ended: Callable[[], None] = _nothing  # the member was removed from its cluster


class Node:
    """Implements `transport.Node`."""

    def __init__(self, data: DataDirectory, config: NodeConfig, hooks: NodeHooks | None = None) -> None:
        self.data = data
        self.config = config
        self._hooks = hooks or NodeHooks()
        self.member: Member | None = None
        self.removed = False
        self.transport = Transport(
            self,
            client_tls=config.client_tls,
            server_tls=config.server_tls,
            # Detect a silent peer about as fast as Raft detects a silent leader.
            silence_seconds=min(max(2 * config.settings.election_ns / 1e9, 1.0), 10.0),
        )
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._founding: Founding | None = None
        self._sending: set[int] = set()
        self._snapshots: Snapshots | None = None
        self._tasks = Tasks(self._fatal)
        self._attributes_sent = False
        self._said_refused: dict[int, str] = {}
        self._connected: set[int] = set()
        self._met: dict[int, str] = {}  # peers that connected before we had any state: id -> URL
        self.caught_up = False  # everything committed when this node started is applied here

    @property
    def state(self) -> State:
        if self.removed:
            return State.REMOVED
        if self.member is None:
            return State.EMPTY
        return State.MEMBER if self.data.identity.opened else State.FORMED

    @property
    def serving(self) -> bool:
        """Whether clients are served. A member serves once it surely has everything that it served before its stop:
        after a linearizable read since the start, or when every entry that its log had at the start is applied."""
        member = self.member
        return member is not None and self.state is State.MEMBER and (self.caught_up or member.recovered)

    # ---- start and stop ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Continue as the member we are, or become one in the way the configuration says."""
        identity = self.data.identity
        config = self.config
        if config.bootstrap == "static":
            self._founding = Founding(
                self.data.path,
                name=config.name,
                volume_id=identity.volume_id,
                token=config.token,
                peers=config.initial_cluster,
                cluster_id=identity.cluster_id,
            )
        if identity.cluster_id:
            self._start_member()
        elif config.bootstrap == "static":
            self._tasks.spawn(self._found())
        elif config.bootstrap == "existing":
            self._tasks.spawn(self._claim())
        else:
            log.info("volume %x is empty and waits to be told which cluster it belongs to", identity.volume_id)

    def _fatal(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    async def stop(self, hand_over_seconds: float = 1.0) -> None:
        self._tasks.cancel()
        if self.member is not None:
            if not self.failed.done():
                await self.member.hand_over(hand_over_seconds)
            if self._snapshots is not None:
                await self._snapshots.close()
            await self.member.stop()
        await self.transport.close()
        self.data.close()

    def _start_member(self) -> None:
        disk = open_disk(self.data.path)
        self.data.count_on(newest_incarnation(disk.store, disk.log, self.data.identity.member_id))
        identity = self.data.identity
        self.member = Member(
            identity.member_id,
            incarnation=identity.incarnation,
            disk=disk,
            hooks=Hooks(
                send=self.transport.send,
                deliver=self._hooks.deliver,
                send_snapshot=self._send_snapshot,
                conf_changed=self._conf_changed,
                turn_ended=self._hooks.turn_ended,
                fatal=self._fatal,
                refused=self.transport.end,
                count_on=self.data.count_on,
            ),
            settings=self.config.settings,
            max_learners=self.config.max_learners,
            # Long enough for writes to wait through an election: 5 s plus two election timeouts, as in etcd.
            request_timeout_ns=5_000_000_000 + 2 * self.config.settings.election_ns,
        )
        self._snapshots = Snapshots(self.member)
        log.info("member %x of cluster %x", identity.member_id, identity.cluster_id)
        self._conf_changed()
        self._notice_caught_up()

    def _notice_caught_up(self) -> None:
        """One linearizable read proves that we have everything that was acknowledged when we started."""
        member = self.member
        assert member is not None

        def answered(answer: Answer) -> None:
            if answer.error is None:
                self.caught_up = True
            elif not self.failed.done() and self.member is member:
                asyncio.get_running_loop().call_later(0.2, self._notice_caught_up)

        member.read(answered)

    # ---- becoming a member ---------------------------------------------------------------------------------

    async def _found(self) -> None:
        founding = self._founding
        assert founding is not None
        await founding.run(self.config.client_tls)
        members = tuple(
            raft_pb2.MemberInfo(id=id, name=name, peer_urls=[founding.peers[name]], volume_id=id)
            for name, id in sorted(founding.ids.items())
        )
        found_cluster(self.data, Genesis(members), founding.confirmed)
        founding.cluster_id = founding.confirmed
        log.info("founded cluster %x with %s", founding.confirmed, ", ".join(sorted(founding.ids)))
        self._start_member()

    async def _claim(self) -> None:
        config = self.config
        reply = await claim(
            self.data.identity.volume_id,
            list(config.advertise_peer_urls),
            list(config.initial_cluster.values()),
            config.client_tls,
        )
        join_cluster(self.data, reply.cluster_id, reply.member_id)
        self._start_member()

    def form(self, cluster_id: int, volume_id: int) -> int:
        """Found a cluster of this node alone, which an operator then extends. Idempotent. Returns the member id."""
        identity = self.data.identity
        if volume_id != identity.volume_id:
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION,
                    f"holdfast: this node's volume is {identity.volume_id:x}, not {volume_id:x}: it was replaced "
                    "meanwhile",
                )
            )
        if identity.cluster_id == cluster_id:
            return identity.member_id
        if identity.cluster_id or not cluster_id or self.config.bootstrap != "managed":
            raise RequestError(
                Refusal(
                    Code.FAILED_PRECONDITION,
                    f"holdfast: this node cannot form cluster {cluster_id:x}: it belongs to {identity.cluster_id:x} "
                    f"and was started with --bootstrap={self.config.bootstrap}",
                )
            )
        me = raft_pb2.MemberInfo(
            id=identity.volume_id,
            name=self.config.name,
            peer_urls=self.config.advertise_peer_urls,
            client_urls=self.config.advertise_client_urls,
            volume_id=identity.volume_id,
        )
        found_cluster(self.data, Genesis((me,)), cluster_id, opened=False)
        self._start_member()
        return identity.volume_id

    def open(self, cluster_id: int) -> None:
        """Serve clients from now on: the operator has recorded the founding."""
        if cluster_id != self.data.identity.cluster_id:
            raise RequestError(
                Refusal(Code.FAILED_PRECONDITION, f"holdfast: this node belongs to {self.data.identity.cluster_id:x}")
            )
        if not self.data.identity.opened:
            self.data.open_for_clients()

    # ---- members -------------------------------------------------------------------------------------------

    def _conf_changed(self) -> None:
        """Members or their addresses changed: update connections, publish our attributes, notice our own removal."""
        member = self.member
        if member is None:
            return
        state = member.state
        if member.id in state.removed:
            self._was_removed(member)
            return
        known = {m.id: m.peer_urls[0] for m in state.members.values() if m.id != member.id and m.peer_urls}
        self.transport.set_peers(known if state.members else self._met)
        self.transport.shut_out(state.removed)
        me = state.members.get(member.id)
        if me is not None and not self._attributes_sent:
            wanted = (self.config.name, self.config.advertise_client_urls, self.config.priority)
            if (me.name, tuple(me.client_urls), me.priority) != wanted and self.config.advertise_client_urls:
                self._attributes_sent = True
                self._send_attributes()

    def _was_removed(self, member: Member) -> None:
        """Stop being a member. Under an operator the process stays up to report it, until its volume is emptied."""
        if self.removed:
            return
        self.removed = True
        line = f"member {member.id:x} was removed from this cluster; start with an empty volume to join again"
        if self.config.bootstrap != "managed":
            self._fatal(BootstrapRefused(line))
            return
        log.warning("%s", line)
        self.transport.set_peers({})
        self.member = None
        self._hooks.member_ended()
        self._tasks.spawn(member.stop())

    def _send_attributes(self) -> None:
        """Propose our name, client URLs and priority; retry until it succeeds."""
        member = self.member
        assert member is not None
        attributes = raft_pb2.MemberAttributes(
            id=member.id,
            name=self.config.name,
            client_urls=self.config.advertise_client_urls,
            priority=self.config.priority,
        )

        def answered(answer: Answer) -> None:
            if answer.error is not None and answer.error.code == Code.UNAVAILABLE and self.member is member:
                asyncio.get_running_loop().call_later(0.5, self._send_attributes)

        if not self.failed.done():
            member.propose(raft_pb2.Command(attributes=attributes), answered)

    # ---- for the transport ---------------------------------------------------------------------------------

    def hello(self, to: int, purpose: str) -> raft_pb2.Hello:
        identity = self.data.identity
        epoch = self.member.state.epoch if self.member else 0
        return raft_pb2.Hello(
            protocol=LOWEST_PROTOCOL,
            speaks=PROTOCOL,
            cluster_id=identity.cluster_id,
            epoch=epoch,
            from_id=identity.member_id or identity.volume_id,
            to_id=to,
            volume_id=identity.volume_id,
            purpose=purpose,
            peer_url=self.config.advertise_peer_urls[0],
        )

    def welcome(self, hello: raft_pb2.Hello) -> str:
        identity = self.data.identity
        if not hello.protocol <= PROTOCOL or max(hello.protocol, hello.speaks) < LOWEST_PROTOCOL:
            return f"peer protocol {hello.protocol}, this program speaks {LOWEST_PROTOCOL} to {PROTOCOL}"
        may_join = not identity.cluster_id and self.config.bootstrap == "managed"
        if may_join and hello.cluster_id and hello.to_id == identity.volume_id:
            # The first leader that addresses our volume id tells us which cluster we were added to.
            join_cluster(self.data, hello.cluster_id, identity.volume_id)
            self._start_member()
            identity = self.data.identity
        if not identity.cluster_id or hello.cluster_id != identity.cluster_id:
            return f"this node belongs to cluster {identity.cluster_id:x}, not to {hello.cluster_id:x}"
        if hello.to_id != identity.member_id:
            return f"this is member {identity.member_id:x}, not {hello.to_id:x}"
        if self.member is None:
            return f"member {identity.member_id:x} is not running"
        return self._who(hello, self.member)

    def _who(self, hello: raft_pb2.Hello, member: Member) -> str:
        """Why the sender of `hello` is not accepted as a member; empty if it is."""
        state, raft = member.state, member.raft
        if hello.from_id in state.removed:
            return f"member {hello.from_id:x} was removed from this cluster"
        if hello.from_id in (0, member.id):
            return f"member {hello.from_id:x} is this one, or nobody"
        if hello.epoch and state.epoch and hello.epoch != state.epoch:
            return f"epoch {hello.epoch}, this cluster is in epoch {state.epoch}"
        known = state.members.get(hello.from_id)
        if known is not None and known.volume_id not in (0, hello.volume_id):
            return f"member {hello.from_id:x} lives on the volume {known.volume_id:x}, not on {hello.volume_id:x}"
        unknown = state.members and known is None and hello.from_id not in raft.conf.members()
        if unknown and member.raft.leader not in (0, hello.from_id):
            # While we have no leader, we may have missed the change that added it: it may be the leader by now.
            return f"{hello.from_id:x} is not a member of this cluster"
        if not state.members and hello.peer_url and self._may_meet(hello):
            # Without state we know no addresses; without this one our answers would never reach the leader.
            self._met[hello.from_id] = hello.peer_url
            self._conf_changed()
        return ""

    def _may_meet(self, hello: raft_pb2.Hello) -> bool:
        return is_url(hello.peer_url) and (hello.from_id in self._met or len(self._met) < MAX_MET)

    def received(self, frm: int, frame: raft_pb2.PeerFrame) -> None:
        member = self.member
        if member is None:
            return
        for wire in frame.messages:
            try:
                message = codec.decode(wire, member.id, frm)
            except codec.Malformed as malformed:
                raise ProtocolError(str(malformed)) from malformed
            if message is not None:
                member.received(message)

    def peer_up(self, member: int) -> None:
        log.info("connected to %x", member)
        self._connected.add(member)
        self._said_refused.pop(member, None)

    def peer_lost(self, member: int) -> None:
        if member in self._connected:
            self._connected.discard(member)
            log.info("lost the connection to %x", member)
        if self.member is not None:
            self.member.give(PeerLost(member))

    def refused(self, member: int, reason: str) -> None:
        if self._said_refused.get(member) != reason:
            self._said_refused[member] = reason
            log.warning("%x refuses us: %s", member, reason)
        if self.member is not None and reason == f"member {self.member.id:x} was removed from this cluster":
            self._was_removed(self.member)

    async def serve_other(
        self, hello: raft_pb2.Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if hello.purpose == "founding":
            await self._serve_founding(reader, writer)
        elif hello.purpose == "claim":
            await self._serve_claim(reader, writer)
        elif hello.purpose == "snapshot" and self.member is not None:
            assert self._snapshots is not None
            await self._snapshots.receive(hello.from_id, reader, writer)

    async def _serve_founding(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await read_frame(reader, 1 << 20)
        identity = self.data.identity
        founding = self._founding
        if founding is None:
            view = raft_pb2.FoundingView(
                name=self.config.name, volume_id=identity.volume_id, cluster_id=identity.cluster_id
            )
        else:
            if not identity.cluster_id:
                try:
                    founding.learn(raft_pb2.FoundingView.FromString(body))
                except (BootstrapRefused, DecodeError) as error:
                    log.warning("%s", error)
            view = founding.view()
        write_frame(writer, view)
        await writer.drain()

    async def _serve_claim(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = raft_pb2.ClaimRequest.FromString(await read_frame(reader, 1 << 20))
        write_frame(writer, await self._claimed(request))
        await writer.drain()

    async def _claimed(self, request: raft_pb2.ClaimRequest) -> raft_pb2.ClaimReply:
        member = self.member
        if member is None:
            return raft_pb2.ClaimReply(refused="this node belongs to no cluster yet")
        if not request.volume_id or len(request.peer_urls) > MAX_MET or not all(map(is_url, request.peer_urls)):
            return raft_pb2.ClaimReply(refused="a claim needs the id of a volume, and peer URLs of it")
        urls = set(request.peer_urls)
        found = [m for m in member.state.members.values() if urls & set(m.peer_urls)]
        if not found:
            return raft_pb2.ClaimReply(
                refused=f"no member has the peer URL {', '.join(sorted(urls))}; add it first (member add)"
            )
        if found[0].volume_id == request.volume_id:  # a repeated claim: nothing to propose
            return raft_pb2.ClaimReply(cluster_id=self.data.identity.cluster_id, member_id=found[0].id)
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        command = raft_pb2.Command(claim=raft_pb2.Claim(member_id=found[0].id, volume_id=request.volume_id))
        member.propose(command, done.set_result)
        answer = await done
        if answer.error is not None:
            return raft_pb2.ClaimReply(refused=answer.error.message)
        return raft_pb2.ClaimReply(cluster_id=self.data.identity.cluster_id, member_id=found[0].id)

    # ---- snapshots -----------------------------------------------------------------------------------------

    def _send_snapshot(self, to: int) -> None:
        if to in self._sending:
            return
        self._sending.add(to)
        self._tasks.spawn(self._do_send_snapshot(to))

    async def _do_send_snapshot(self, to: int) -> None:
        member = self.member
        assert member is not None
        ok = False
        try:
            info = member.state.members.get(to)
            if info is not None and info.peer_urls:
                hello = self.hello(to, "snapshot")
                assert self._snapshots is not None
                ok = await self._snapshots.send(to, info.peer_urls[0], self.transport, hello)
        finally:
            self._sending.discard(to)
            member.snapshot_sent(to, ok)
