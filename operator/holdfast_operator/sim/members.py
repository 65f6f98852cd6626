"""The operator's own client of the store, over simulated members.

Only the connection is replaced: `Members`, `Client` and the protocol buffers are the real ones. A call takes time, and
may get lost before or after it took effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

import grpc
from google.protobuf.message import Message
from holdfast import client
from holdfast.client.connection import Connection, Response
from holdfast.client.errors import OutcomeUnknown, Unavailable, refusal
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.status import NO_LEADER, NOT_A_MEMBER, NOT_LEADER, Refusal

from holdfast_operator.kube import Kube
from holdfast_operator.members import CHANGE_SECONDS, Members
from holdfast_operator.sim.keyvalues import TooManyOps
from holdfast_operator.sim.raft import Group, Member, NotAllowed, Process

_CODES = {status.value[0]: status for status in grpc.StatusCode}


class Network(Protocol):
    """What a connection needs from the world."""

    rng: Random

    def process_at(self, address: str) -> Process | None: ...

    def asked(self, leader: int) -> None: ...

    def group(self, cluster_id: int) -> Group | None: ...

    def found(self, cluster_id: int, process: Process) -> Group: ...

    def running(self, group: Group) -> dict[int, Process]: ...

    def replica_reports(self, cluster_id: int) -> list[holdfast_pb2.ReplicaReport]: ...

    def before_change(self, group: Group, new: dict[int, Member]) -> None: ...


@dataclass(slots=True)
class CallFaults:
    lost_request: float = 0.0
    lost_answer: float = 0.0
    latency: float = 0.01


def refused(known: Refusal) -> client.Refused:
    return refusal(_CODES[known.code.value], known.message, known)


class SimConnection(Connection):
    """A connection to the process at one address."""

    def __init__(self, network: Network, faults: CallFaults, address: str) -> None:
        super().__init__([address], tls=None, timeout=CHANGE_SECONDS)
        self._network = network
        self._faults = faults
        self._address = address

    async def call(
        self,
        path: str,
        request: Message,
        response: type[Response],
        *,
        idempotent: bool,
        timeout: float | None = None,
        endpoint: str | None = None,
        name: tuple[tuple[str, str], ...] | None = None,
        anonymous: bool = False,
        metadata: tuple[tuple[str, str], ...] = (),
        headers: list[tuple[str, str | bytes]] | None = None,
        noted: bool = True,
    ) -> Response:
        network, faults = self._network, self._faults
        seconds = timeout or self.timeout
        await asyncio.sleep(network.rng.random() * faults.latency)
        fate = network.rng.random()
        process = network.process_at(self._address)
        if process is None or fate < faults.lost_request:
            await asyncio.sleep(seconds)
            raise Unavailable(f"{self._address} does not answer")
        answer = await self._served(path, request, process)
        await asyncio.sleep(network.rng.random() * faults.latency)
        if fate < faults.lost_request + faults.lost_answer:
            await asyncio.sleep(seconds)
            if idempotent:
                raise Unavailable(f"{self._address} does not answer")
            raise OutcomeUnknown("no answer in time")
        assert isinstance(answer, response)
        return answer

    async def _served(self, path: str, request: Message, process: Process) -> Message:
        if isinstance(request, holdfast_pb2.DescribeRequest):
            return self._describe(process)
        if isinstance(request, holdfast_pb2.FormRequest):
            return self._form(process, request)
        if isinstance(request, holdfast_pb2.OpenRequest):
            if request.cluster_id != process.disk.cluster_id:
                raise refusal(grpc.StatusCode.FAILED_PRECONDITION, "holdfast: this node belongs to another", None)
            process.disk.opened = True
            return holdfast_pb2.OpenResponse()
        group = self._serving(process)
        if isinstance(request, holdfast_pb2.MembershipGetRequest):
            return self._membership(group, process)
        if isinstance(request, holdfast_pb2.MembershipChangeRequest):
            return await self._change(group, request)
        if isinstance(request, rpc_pb2.MoveLeaderRequest):
            return self._move(group, process, request.targetID)
        if isinstance(request, rpc_pb2.RangeRequest):
            return group.data.range(request)
        if isinstance(request, rpc_pb2.PutRequest):
            return group.data.put(request)
        if isinstance(request, rpc_pb2.TxnRequest):
            try:
                return group.data.txn(request)
            except TooManyOps:
                message = "etcdserver: too many operations in txn request"
                raise refusal(grpc.StatusCode.INVALID_ARGUMENT, message, None) from None
        raise refusal(grpc.StatusCode.UNIMPLEMENTED, f"the simulation knows no {path}", None)

    # ---- the node ------------------------------------------------------------------------------------------

    def _describe(self, process: Process) -> holdfast_pb2.DescribeResponse:
        disk = process.disk
        answer = holdfast_pb2.DescribeResponse(
            volume_id=disk.volume_id,
            cluster_id=disk.cluster_id,
            member_id=disk.member_id,
            name=process.pod,
            version="0.1.0",
            applied_index=disk.match,
        )
        group = self._network.group(disk.cluster_id)
        if disk.empty:
            answer.state = holdfast_pb2.DescribeResponse.EMPTY
        elif group is None:  # its other members are elsewhere
            answer.state = holdfast_pb2.DescribeResponse.MEMBER
        elif disk.removed:
            answer.state = holdfast_pb2.DescribeResponse.REMOVED
        else:
            answer.state = holdfast_pb2.DescribeResponse.MEMBER if disk.opened else holdfast_pb2.DescribeResponse.FORMED
            answer.leader = group.leader if process.reachable else 0
            answer.revision = group.data.revision
            answer.ready = disk.opened and process.caught_up and disk.member_id in group.voters
            answer.replicas.extend(self._network.replica_reports(disk.cluster_id))
        return answer

    def _form(self, process: Process, request: holdfast_pb2.FormRequest) -> holdfast_pb2.FormResponse:
        disk = process.disk
        if request.volume_id != disk.volume_id:
            raise refusal(grpc.StatusCode.FAILED_PRECONDITION, "holdfast: this node's volume was replaced", None)
        if disk.cluster_id not in (0, request.cluster_id):
            raise refusal(grpc.StatusCode.FAILED_PRECONDITION, "holdfast: this node belongs to another cluster", None)
        if disk.empty:
            self._network.found(request.cluster_id, process)
        return holdfast_pb2.FormResponse(member_id=disk.member_id)

    # ---- the member ----------------------------------------------------------------------------------------

    def _serving(self, process: Process) -> Group:
        group = self._network.group(process.disk.cluster_id)
        if group is None or process.disk.removed or not process.disk.opened:
            raise refused(NOT_A_MEMBER)
        if not group.leader or process.disk.member_id not in group.members:
            raise Unavailable(NO_LEADER.message)
        return group

    def _membership(self, group: Group, process: Process) -> holdfast_pb2.MembershipGetResponse:
        leads = process.disk.member_id == group.leader
        running = self._network.running(group)
        answer = holdfast_pb2.MembershipGetResponse(config_index=group.config_index, leader=group.leader)
        for _, member in sorted(group.members.items()):
            there = running.get(member.id)
            found = answer.members.add(caught_up=leads and group.is_caught_up(there))
            found.member.ID = member.id
            found.member.name = member.name
            found.member.isLearner = not member.voter
            found.member.peerURLs.append(member.url)
            found.match_index = there.disk.match if there is not None else 0
        return answer

    async def _change(
        self, group: Group, request: holdfast_pb2.MembershipChangeRequest
    ) -> holdfast_pb2.MembershipChangeResponse:
        new = dict(group.members)
        try:
            new = group.changed(
                holdfast_pb2.MembershipChangeRequest.Kind.Name(request.kind),
                request.member_id,
                request.name,
                list(request.peer_urls),
                request.expected_config_index,
                self._network.running(group),
            )
        except NotAllowed as error:
            raise refused(error.known) from None
        self._network.before_change(group, new)
        group.pending = True
        # The change goes on whatever becomes of the caller.
        if not await asyncio.shield(asyncio.ensure_future(self._commit(group, group.leader, new))):
            raise OutcomeUnknown("the leader changed")
        return holdfast_pb2.MembershipChangeResponse(config_index=group.config_index)

    async def _commit(self, group: Group, leader: int, new: dict[int, Member]) -> bool:
        """Wait until a majority has the change. It is lost if the leader is no longer the same."""
        await asyncio.sleep(0.05 + self._network.rng.random() * 0.1)
        if group.leader != leader:
            return False
        group.pending = False
        group.commit(new)
        return True

    def _move(self, group: Group, process: Process, target: int) -> rpc_pb2.MoveLeaderResponse:
        if process.disk.member_id != group.leader:
            raise refused(NOT_LEADER)
        self._network.asked(group.leader)
        there = self._network.running(group).get(target)
        if target not in group.voters or there is None or not group.is_caught_up(there):
            raise refused(NO_LEADER)
        group.leader, group.led_at = target, asyncio.get_running_loop().time()
        return rpc_pb2.MoveLeaderResponse()


class SimMembers(Members):
    """Connections to simulated members."""

    def __init__(
        self, kube: Kube, cluster: str, namespace: str, tls: bool, connect: Callable[[str], Connection]
    ) -> None:
        super().__init__(kube, cluster, namespace, tls)
        self._connect = connect
        self._open: dict[str, client.Client] = {}

    async def at(self, ordinal: int, address: str) -> client.Client:
        if self._tls:
            self._credentials()  # as the real one: without the Secret nothing is dialled
        known = self._open.get(address)
        if known is None:
            known = self._open[address] = client.Client(self._connect(address))
        return known

    async def forget(self, addresses: set[str]) -> None:
        self._open = {address: known for address, known in self._open.items() if address in addresses}
