"""Executes one planned action. Each action is safe to repeat. The API server or the member refuses an action that was
decided on old information, by a resource version, a uid or the index of the configuration."""

from __future__ import annotations

from holdfast import client
from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.kube import Kube, Object
from holdfast_operator.members import Members, hex_id
from holdfast_operator.observe import Observation
from holdfast_operator.plan.actions import (
    Action,
    AddLearner,
    DeletePod,
    DeleteVolume,
    Form,
    Open,
    Promote,
    Record,
    RecordBootstrapped,
    Remove,
    TransferLeader,
    Wait,
)
from holdfast_operator.resources.common import PEER_PORT, peer_host, voter_name

_Change = holdfast_pb2.MembershipChangeRequest


class Actor:
    """Executes actions for one cluster object, as it was read in this pass."""

    def __init__(self, kube: Kube, members: Members, cluster: Object, observation: Observation, tls: bool) -> None:
        self._kube = kube
        self._members = members
        self._cluster = cluster
        self._seen = observation
        self._scheme = "https" if tls else "http"
        self._name: str = cluster["metadata"]["name"]
        self._namespace: str = cluster["metadata"]["namespace"]

    async def carry_out(self, action: Action) -> None:
        if isinstance(action, Wait):
            return
        if isinstance(action, Record):
            await self._latch(clusterID=hex_id(action.cluster_id), seed=hex_id(action.seed))
        elif isinstance(action, RecordBootstrapped):
            await self._latch(bootstrapped=True)
            await self._tell("Normal", "ClusterFormed", f"cluster {self._cluster['status']['clusterID']} is formed")
        elif isinstance(action, Form):
            at = await self._at(action.ordinal)
            await at.form(action.cluster_id, action.volume_id)
        elif isinstance(action, Open):
            await (await self._at(action.ordinal)).open_for_clients(action.cluster_id)
        elif isinstance(action, AddLearner | Promote | Remove):
            await self._change(action)
        elif isinstance(action, TransferLeader):
            leader = await self._at(action.leader_ordinal)
            await self._tell(
                "Normal", "LeaderHandsOver", f"{voter_name(self._name, action.leader_ordinal)}: {action.why}"
            )
            await leader.move_leader(action.to)
        elif isinstance(action, DeletePod):
            name = voter_name(self._name, action.ordinal)
            await self._kube.delete("Pod", self._namespace, name, uid=action.uid)
            await self._tell("Normal", "PodReplaced", f"{name} is deleted: {action.why}")
        elif isinstance(action, DeleteVolume):
            await self._kube.delete("PersistentVolumeClaim", self._namespace, action.name, uid=action.uid)
            await self._tell("Normal", "VolumeDeleted", f"{action.name}: its member is removed")

    async def _at(self, ordinal: int) -> client.Client:
        return await self._members.at(ordinal, self._seen.address(ordinal))

    async def _leader(self) -> client.Client:
        leader = self._seen.members.leader if self._seen.members is not None else 0
        ordinal = next(n for n, node in self._seen.nodes.items() if node.member_id == leader)
        return await self._at(ordinal)

    async def _change(self, action: AddLearner | Promote | Remove) -> None:
        request = _Change(member_id=action.member_id, expected_config_index=action.config_index)
        if isinstance(action, AddLearner):
            name = voter_name(self._name, action.ordinal)
            request.kind = _Change.ADD_LEARNER
            request.name = name
            host = peer_host(self._name, self._namespace, action.ordinal)
            request.peer_urls.append(f"{self._scheme}://{host}:{PEER_PORT}")
            said = ("MemberAdded", f"{name} joins as learner {hex_id(action.member_id)}")
        elif isinstance(action, Promote):
            request.kind = _Change.PROMOTE
            said = ("MemberPromoted", f"{action.name} caught up and votes now")
        else:
            request.kind = _Change.REMOVE
            said = ("MemberRemoved", f"{action.name}: {action.why}")
        await (await self._leader()).change_membership(request)
        await self._tell("Normal", *said)

    async def _latch(self, **fields: object) -> None:
        """Write to the status with the resource version that was read, so that only one of two operators succeeds."""
        await status.write(self._kube, self._cluster, {**self._cluster.get("status", {}), **fields})

    async def _tell(self, type_: str, reason: str, message: str) -> None:
        await self._kube.event(self._cluster, type_, reason, message)
