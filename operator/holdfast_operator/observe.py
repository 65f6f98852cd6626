"""The observed state: the objects in Kubernetes, and what each member reports about itself."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from holdfast.proto import holdfast_pb2

from holdfast_operator.kube import Kube, Object
from holdfast_operator.members import Members, from_hex
from holdfast_operator.objects import is_owned
from holdfast_operator.plan.facts import Member, Membership, Node, NodeState, Observed, Pod, Volume
from holdfast_operator.pods import is_ready, is_unschedulable, run_of, trouble_of
from holdfast_operator.resources.common import (
    CLUSTER_LABEL,
    COMPONENT_LABEL,
    TEMPLATE_LABEL,
    ordinal_of,
    voter_name,
)

CLUSTER_ID, MEMBER_ID = "holdfast.dev/cluster-id", "holdfast.dev/member-id"  # annotations of a claim
SELECTED_NODE = "volume.kubernetes.io/selected-node"


@dataclass(slots=True)
class Observation:
    """`plan` is the input of the planner; the rest is for executing actions and for the status."""

    plan: Observed
    pods: dict[int, Object]
    nodes: dict[int, holdfast_pb2.DescribeResponse]
    members: holdfast_pb2.MembershipGetResponse | None
    replicas: list[holdfast_pb2.ReplicaReport]
    image: str | None  # of the StatefulSet's template; None: there is none

    def address(self, ordinal: int) -> str:
        return str(self.pods[ordinal]["status"].get("podIP", ""))


async def observe(kube: Kube, cluster: Object, members: Members, *, transfer_expired: bool) -> Observation:
    """Read everything once."""
    meta = cluster["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    status = cluster.get("status", {})
    labels = f"{CLUSTER_LABEL}={name},{COMPONENT_LABEL}=voter"
    pods, claims, stateful = await asyncio.gather(
        kube.list("Pod", namespace, labels=labels),
        kube.list("PersistentVolumeClaim", namespace, labels=labels),
        kube.get("StatefulSet", namespace, voter_name(name)),
    )
    if stateful is not None and not is_owned(cluster, stateful):
        stateful = None  # of an earlier cluster of this name: its pods are not ours
    by_ordinal = {
        ordinal_of(p["metadata"]["name"], voter_name(name)): p
        for p in pods
        if stateful is not None and is_owned(stateful, p)
    }
    by_ordinal.pop(-1, None)
    addresses = {n: p["status"]["podIP"] for n, p in by_ordinal.items() if _may_answer(p)}
    await members.forget(set(addresses.values()))
    described = await asyncio.gather(*(members.describe(n, a) for n, a in addresses.items()))
    nodes = {n: d for n, d in zip(addresses, described, strict=True) if d is not None}
    cluster_id = from_hex(status.get("clusterID"))
    # After the reports: a member that a report knows is then missing here only if it was removed.
    membership = await _membership(members, nodes, addresses, cluster_id)
    return Observation(
        plan=Observed(
            pods={n: _pod(p, nodes.get(n), kube.now()) for n, p in by_ordinal.items()},
            volumes=_volumes(claims, cluster, await _lost(kube, pods, claims)),
            membership=None if membership is None else _planned(membership, name),
            cluster_id=cluster_id,
            seed=from_hex(status.get("seed")),
            bootstrapped=bool(status.get("bootstrapped")),
            fresh_id=secrets.randbits(63) or 1,
            transfer_expired=transfer_expired,
            scheduled=stateful["spec"]["replicas"] if stateful else 0,
            template=_made_from(stateful) if stateful else None,
        ),
        pods=by_ordinal,
        nodes=nodes,
        members=membership,
        replicas=_replicas(nodes),
        image=stateful["spec"]["template"]["spec"]["containers"][0]["image"] if stateful else None,
    )


def _may_answer(pod: Object) -> bool:
    """Whether to ask its process. Waiting for one that is on its way out would hold up the news of that."""
    status = pod.get("status", {})
    ended = "deletionTimestamp" in pod["metadata"] or status.get("phase") in ("Succeeded", "Failed")
    return bool(status.get("podIP")) and not ended


def _made_from(stateful: Object) -> str:
    return str((stateful["spec"]["template"]["metadata"].get("labels") or {}).get(TEMPLATE_LABEL, ""))


def _replicas(nodes: Mapping[int, holdfast_pb2.DescribeResponse]) -> list[holdfast_pb2.ReplicaReport]:
    """The newest report of each edge replica, whichever member it follows. A member that it left may list it as
    offline."""
    newest: dict[str, holdfast_pb2.ReplicaReport] = {}
    for node in nodes.values():
        for report in node.replicas:
            known = newest.get(report.replica)
            if known is None or _recency(report) >= _recency(known):
                newest[report.replica] = report
    return list(newest.values())


def _recency(report: holdfast_pb2.ReplicaReport) -> tuple[bool, int, int]:
    """Greater for a newer report."""
    return not report.offline_since, report.offline_since, report.watermark


async def _membership(
    members: Members,
    nodes: Mapping[int, holdfast_pb2.DescribeResponse],
    addresses: Mapping[int, str],
    cluster_id: int,
) -> holdfast_pb2.MembershipGetResponse | None:
    """The membership as the leader reports it, because only the leader knows which members have caught up."""
    ours = {n: d for n, d in nodes.items() if cluster_id and d.cluster_id == cluster_id and d.state == d.MEMBER}
    leads = [n for n, d in ours.items() if d.leader == d.member_id]
    for ordinal in [*leads, *(n for n in ours if n not in leads)]:
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


def _pod(pod: Object, node: holdfast_pb2.DescribeResponse | None, now: datetime) -> Pod:
    return Pod(
        uid=pod["metadata"]["uid"],
        ready=is_ready(pod),
        terminating="deletionTimestamp" in pod["metadata"],
        template=pod["metadata"].get("labels", {}).get(TEMPLATE_LABEL, ""),
        node=None
        if node is None
        else Node(
            node.volume_id, node.cluster_id, node.member_id, NodeState(node.state), node.ready, node.applied_index
        ),
        run=run_of(pod, now),
        trouble=trouble_of(pod, now),
    )


async def _lost(kube: Kube, pods: list[Object], claims: list[Object]) -> set[str]:
    """Claims whose volume can only be used on a node that does not exist any more. They are looked for only where a pod
    cannot be scheduled, because a volume that can move to another node is not lost."""
    waiting = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods
        if is_unschedulable(pod)
        for volume in pod["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    lost: set[str] = set()
    for claim in claims:
        name, volume = claim["metadata"]["name"], claim["spec"].get("volumeName")
        node = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
        if name not in waiting or not volume or not node or await kube.get("Node", "", node) is not None:
            continue
        found = await kube.get("PersistentVolume", "", volume)
        if found is not None and _only_on(found, node):
            lost.add(name)
    return lost


def _only_on(volume: Object, node: str) -> bool:
    """Whether the volume's node affinity requires this node by its hostname or name."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required") or {}
    terms = required.get("nodeSelectorTerms") or []
    return bool(terms) and all(
        any(
            rule.get("operator") == "In"
            and rule.get("values") == [node]
            and rule["key"] in ("kubernetes.io/hostname", "metadata.name")
            for rule in [*(term.get("matchExpressions") or []), *(term.get("matchFields") or [])]
        )
        for term in terms
    )


def _volumes(claims: list[Object], cluster: Object, lost: set[str]) -> dict[int, Volume]:
    found: dict[int, Volume] = {}
    for claim in claims:
        meta = claim["metadata"]
        ordinal = ordinal_of(meta["name"], f"data-{voter_name(cluster['metadata']['name'])}")
        if ordinal >= 0:
            marks = meta.get("annotations") or {}
            cluster_id, member_id = (_hex(marks.get(key, "")) for key in (CLUSTER_ID, MEMBER_ID))
            found[ordinal] = Volume(
                meta["name"],
                meta["uid"],
                cluster_id,
                member_id,
                terminating="deletionTimestamp" in meta,
                lost=meta["name"] in lost,
                younger=_created(claim) > _created(cluster),
            )
    return found


def _created(thing: Object) -> datetime:
    return datetime.fromisoformat(thing["metadata"]["creationTimestamp"])


def _hex(text: str) -> int:
    """An id from an annotation, which users can edit; 0 if it is not one."""
    try:
        return int(text, 16)
    except ValueError:
        return 0
