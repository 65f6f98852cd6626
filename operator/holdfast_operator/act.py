"""Executes one planned action. Each action is safe to repeat. The API server or the member refuses an action that was
decided on old information, by a resource version, a uid or the index of the configuration."""

from __future__ import annotations

import logging

from holdfast import client
from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.members import Members, hex_id
from holdfast_operator.observe import CLUSTER_ID, MEMBER_ID, Observation
from holdfast_operator.plan.actions import (
    Action,
    AddLearner,
    DeletePod,
    DeleteVolume,
    EvictPod,
    Forget,
    Form,
    MarkVolumes,
    Open,
    Promote,
    Record,
    RecordBootstrapped,
    Remove,
    TransferLeader,
    Wait,
)
from holdfast_operator.resources.common import PEER_PORT, peer_host, voter_name

log = logging.getLogger("holdfast.operator")

_Change = holdfast_pb2.MembershipChangeRequest
Said = tuple[str, str]  # reason and message of an event


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
        """Raises ApiError and client.ClientError. The event comes after the action, at best effort."""
        said = await self._carry_out(action)
        if said is not None:
            try:
                await self._kube.event(self._cluster, "Normal", *said)
            except (ApiError, OSError, TimeoutError) as error:
                log.warning("%s/%s: no event could be recorded: %s", self._namespace, self._name, error)

    async def _carry_out(self, action: Action) -> Said | None:
        match action:
            case Wait():
                pass
            case MarkVolumes():
                await self._mark(action)
            case Record():
                await self._latch(clusterID=hex_id(action.cluster_id), seed=hex_id(action.seed))
            case RecordBootstrapped():
                await self._latch(bootstrapped=True)
                return "ClusterFormed", f"cluster {self._cluster['status']['clusterID']} is formed"
            case Forget():
                await self._latch(clusterID=None, seed=None, bootstrapped=None)
                return "ClusterForgotten", f"cluster {hex_id(action.cluster_id)} was given up by annotation"
            case Form():
                at = await self._at(action.ordinal)
                await at.form(action.cluster_id, action.volume_id)
            case Open():
                await (await self._at(action.ordinal)).open_for_clients(action.cluster_id)
            case AddLearner() | Promote() | Remove():
                return await self._change(action)
            case TransferLeader():
                await (await self._at(action.leader_ordinal)).move_leader(action.to)
                return "LeaderHandsOver", f"{voter_name(self._name, action.leader_ordinal)}: {action.why}"
            case EvictPod() | DeletePod():
                return await self._end(action)
            case DeleteVolume():
                if await self._kube.delete("PersistentVolumeClaim", self._namespace, action.name, uid=action.uid):
                    return "VolumeDeleted", f"{action.name}: {action.why}"
        return None

    async def _mark(self, action: MarkVolumes) -> None:
        for mark in action.marks:
            found = {MEMBER_ID: hex_id(mark.member_id)}
            if mark.cluster_id:
                found[CLUSTER_ID] = hex_id(mark.cluster_id)
            await self._kube.annotate(
                "PersistentVolumeClaim", self._namespace, mark.name, uid=mark.uid, annotations=found
            )

    async def _end(self, action: EvictPod | DeletePod) -> Said | None:
        """None: there is nothing to tell, because the pod has changed or is gone since it was observed."""
        name = voter_name(self._name, action.ordinal)
        if isinstance(action, EvictPod):
            evicted = await self._kube.evict(self._namespace, name, uid=action.uid)
            return ("PodEvicted", f"{name}: {action.why}") if evicted else None
        version = self._seen.pods[action.ordinal]["metadata"]["resourceVersion"] if action.unchanged else ""
        deleted = await self._kube.delete("Pod", self._namespace, name, uid=action.uid, version=version)
        return ("PodReplaced", f"{name} is deleted: {action.why}") if deleted else None

    async def _at(self, ordinal: int) -> client.Client:
        return await self._members.at(ordinal, self._seen.address(ordinal))

    async def _leader(self) -> client.Client:
        leader = self._seen.members.leader if self._seen.members is not None else 0
        ordinal = next(n for n, node in self._seen.nodes.items() if node.member_id == leader)
        return await self._at(ordinal)

    async def _change(self, action: AddLearner | Promote | Remove) -> Said:
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
        return said

    async def _latch(self, **fields: object) -> None:
        """Write to the status with the resource version that was read, so that only one of two operators succeeds."""
        await status.write(self._kube, self._cluster, {**self._cluster.get("status", {}), **fields})
