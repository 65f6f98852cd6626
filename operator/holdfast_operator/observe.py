"""The observed state: the objects in Kubernetes, and what each member reports about itself."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from holdfast.proto import holdfast_pb2

from holdfast_operator.kube import Kube, Object
from holdfast_operator.members import Members, from_hex
from holdfast_operator.plan.cluster import Member, Membership, Node, NodeState, Observed, Pod, Volume
from holdfast_operator.resources.common import (
    CLUSTER_LABEL,
    COMPONENT_LABEL,
    TEMPLATE_LABEL,
    ordinal_of,
    voter_name,
)


@dataclass(slots=True)
class Observation:
    """`plan` is the input of the planner; the rest is for executing actions and for the status."""

    plan: Observed
    pods: dict[int, Object]
    nodes: dict[int, holdfast_pb2.DescribeResponse]
    members: holdfast_pb2.MembershipGetResponse | None
    replicas: list[holdfast_pb2.ReplicaReport]

    def address(self, ordinal: int) -> str:
        return str(self.pods[ordinal]["status"].get("podIP", ""))


async def observe(kube: Kube, cluster: Object, members: Members, *, transfer_expired: bool) -> Observation:
    """Read everything once."""
    meta = cluster["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    status = cluster.get("status", {})
    labels = f"{CLUSTER_LABEL}={name},{COMPONENT_LABEL}=voter"
    pods, volumes, stateful = await asyncio.gather(
        kube.list("Pod", namespace, labels=labels),
        kube.list("PersistentVolumeClaim", namespace, labels=labels),
        kube.get("StatefulSet", namespace, voter_name(name)),
    )
    by_ordinal = {ordinal_of(p["metadata"]["name"], voter_name(name)): p for p in pods}
    by_ordinal.pop(-1, None)
    addresses = {n: p["status"]["podIP"] for n, p in by_ordinal.items() if p.get("status", {}).get("podIP")}
    await members.forget(set(addresses.values()))
    described = await asyncio.gather(*(members.describe(n, a) for n, a in addresses.items()))
    nodes = {n: d for n, d in zip(addresses, described, strict=True) if d is not None}
    membership = await _membership(members, nodes, addresses)
    replicas: dict[str, holdfast_pb2.ReplicaReport] = {}
    for node in nodes.values():
        for report in node.replicas:
            known = replicas.get(report.replica)
            if known is None or report.watermark >= known.watermark:
                replicas[report.replica] = report
    return Observation(
        plan=Observed(
            pods={n: _pod(p, nodes.get(n)) for n, p in by_ordinal.items()},
            volumes=_volumes(volumes, name),
            membership=None if membership is None else _planned(membership, name),
            cluster_id=from_hex(status.get("clusterID")),
            seed=from_hex(status.get("seed")),
            bootstrapped=bool(status.get("bootstrapped")),
            fresh_id=secrets.randbits(63) or 1,
            transfer_expired=transfer_expired,
            scheduled=stateful["spec"]["replicas"] if stateful else 0,
        ),
        pods=by_ordinal,
        nodes=nodes,
        members=membership,
        replicas=list(replicas.values()),
    )


async def _membership(
    members: Members, nodes: dict[int, holdfast_pb2.DescribeResponse], addresses: dict[int, str]
) -> holdfast_pb2.MembershipGetResponse | None:
    """The membership as the leader reports it, because only the leader knows which members have caught up."""
    belonging = {n: d for n, d in nodes.items() if d.cluster_id and d.state == d.MEMBER}
    leads = [n for n, d in belonging.items() if d.leader == d.member_id]
    for ordinal in [*leads, *(n for n in belonging if n not in leads)]:
        found = await members.membership(ordinal, addresses[ordinal])
        if found is not None and found.leader == nodes[ordinal].member_id:
            return found
    return None


def _planned(membership: holdfast_pb2.MembershipGetResponse, cluster: str) -> Membership:
    return Membership(
        membership.config_index,
        membership.leader,
        tuple(
            Member(m.member.ID, ordinal_of(m.member.name, voter_name(cluster)), not m.member.isLearner, m.caught_up)
            for m in membership.members
        ),
    )


def _pod(pod: Object, node: holdfast_pb2.DescribeResponse | None) -> Pod:
    conditions = pod.get("status", {}).get("conditions", [])
    return Pod(
        uid=pod["metadata"]["uid"],
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        terminating="deletionTimestamp" in pod["metadata"],
        template=pod["metadata"].get("labels", {}).get(TEMPLATE_LABEL, ""),
        node=None
        if node is None
        else Node(
            node.volume_id, node.cluster_id, node.member_id, NodeState(node.state), node.ready, node.applied_index
        ),
    )


def _volumes(claims: list[Object], cluster: str) -> dict[int, Volume]:
    found: dict[int, Volume] = {}
    for claim in claims:
        meta = claim["metadata"]
        ordinal = ordinal_of(meta["name"], f"data-{voter_name(cluster)}")
        if ordinal >= 0 and "deletionTimestamp" not in meta:
            found[ordinal] = Volume(meta["name"], meta["uid"])
    return found
