"""How an operator has to do what it may do: one pod at a time, the leader with notice, nothing while paused.

Every rule here is a promise of docs/kubernetes.md. An operator is only held to what it could know: what happened before
the pass began in which it acts.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast_operator.plan.facts import WIPE
from holdfast_operator.resources.common import (
    POOL_LABEL,
    TEMPLATE_LABEL,
    ca_secret,
    ordinal_of,
    peer_secret,
    voter_name,
)
from holdfast_operator.resources.pool import NODE_ANNOTATION
from holdfast_operator.sim.kube import Request
from holdfast_operator.sim.machines import Runtime
from holdfast_operator.sim.objects import Object, going, holds, labels_of, name_of, uid_of
from holdfast_operator.sim.raft import Group, Member
from holdfast_operator.sim.shape import NAMESPACE
from holdfast_operator.sim.world import Acting, World

NEVER = float("inf")


class Conduct:
    def __init__(self, world: World) -> None:
        self._world = world
        self._ready: dict[str, float] = {}  # uid of a pod that is ready: since when
        self._unready: dict[str, float] = {}  # uid of a pod that is not: since when
        self._gone: dict[str, float] = {}  # name of a pod that does not exist: since when
        self._paused = NEVER  # since when
        self._edited = 0.0  # when the cluster's spec last changed
        self._templated = 0.0  # when a StatefulSet last got another template
        self._seen: dict[str, object] = {}  # by uid: the spec of a cluster, the template label of a StatefulSet
        world.api.watchers.append(self._noticed)

    def _noticed(self, event: str, obj: Object) -> None:
        now, uid = self._world.now, uid_of(obj)
        if obj["kind"] == "Pod":
            self._noticed_pod(event, obj)
        elif obj["kind"] == "HoldfastCluster":
            spec = {**obj["spec"], "annotations": obj["metadata"].get("annotations")}
            if self._seen.get(uid) != spec:
                self._edited, self._seen[uid] = now, spec
            paused = event != "DELETED" and bool(obj["spec"].get("paused"))
            self._paused = min(self._paused, now) if paused else NEVER
        elif obj["kind"] == "StatefulSet":
            if event == "ADDED":
                self._gone.setdefault(f"{name_of(obj)}-0", now)  # its first pod is not there yet
            template = _made_from(obj)
            if self._seen.get(uid) != template:
                self._templated, self._seen[uid] = now, template

    def _noticed_pod(self, event: str, pod: Object) -> None:
        now, uid = self._world.now, uid_of(pod)
        if event == "DELETED":
            self._gone[name_of(pod)] = now
        elif event == "ADDED":
            self._gone.pop(name_of(pod), None)
        if event != "DELETED" and holds(pod, "Ready") and not going(pod):
            self._ready.setdefault(uid, now)
            self._unready.pop(uid, None)
        else:
            self._unready.setdefault(uid, now)
            self._ready.pop(uid, None)

    # ---- writes --------------------------------------------------------------------------------------------

    def before_write(self, operator: Acting, request: Request, live: Object | None) -> None:
        if self._paused < operator.pass_at and request.sub != "status" and request.kind.name != "Event":
            self._world.fail("rests while paused", f"{request} while the cluster is paused")
        if request.method == "POST" and request.kind.name == "Secret":
            self._keeps_its_ca(request)
        if live is None or live["kind"] != "Pod" or going(live) or self._wiped():
            return
        if POOL_LABEL in labels_of(live):
            self._one_replica_at_a_time(operator, live)
        elif uid_of(live) in self._ready and self._ready[uid_of(live)] < operator.pass_at:
            if request.sub != "eviction" and not self._removed(live):
                self._world.fail("evicts what serves", f"{request} deletes a pod that is ready")
            self._one_voter_at_a_time(operator, live, str(request))
            self._leader_has_notice(operator, live, str(request))

    def _removed(self, pod: Object) -> bool:
        """Whether the pod's member was removed: it serves nobody, and its kubelet has not noticed yet."""
        runtime = self._world.hardware.runtimes.get(uid_of(pod))
        group = self._world.current_group()
        return runtime is not None and group is not None and runtime.disk.member_id in group.removed

    def _wiped(self) -> bool:
        cluster = self._world.cluster()
        return cluster is not None and WIPE in (cluster["metadata"].get("annotations") or {})

    def _keeps_its_ca(self, request: Request) -> None:
        """A cluster with certificates never gets another CA."""
        name = ca_secret(self._world.shape.cluster)
        if request.body["metadata"]["name"] == name and self._world.api.get("Secret", NAMESPACE, name) is None:
            there = self._world.api.get("Secret", NAMESPACE, peer_secret(self._world.shape.cluster))
            if there is not None and not going(there):
                self._world.fail("keeps its CA", "a second CA is made while there are certificates of the first")

    def _one_voter_at_a_time(self, operator: Acting, pod: Object, what: str) -> None:
        """A voter that is ready is replaced only by one of another template, and while no other one is missing."""
        stateful = self._world.api.get("StatefulSet", NAMESPACE, voter_name(self._world.shape.cluster))
        if stateful is None or max(self._edited, self._templated) >= operator.pass_at:
            return
        if labels_of(pod).get(TEMPLATE_LABEL) == _made_from(stateful):
            self._world.fail("replaces no pod by its like", f"{what}, and the new pod will be like the old one")
        group = self._world.current_group()
        pods = {name_of(p): p for p in self._world.voter_pods()}
        for member in group.members.values() if group is not None else ():
            other = pods.get(member.name)
            if not member.voter or member.name == name_of(pod) or member.name not in self._known_names():
                continue
            if other is None:
                missing = self._gone.get(member.name, NEVER) < operator.pass_at
            else:
                current = labels_of(other).get(TEMPLATE_LABEL) == _made_from(stateful)
                missing = (current or going(other)) and self._unready.get(uid_of(other), NEVER) < operator.pass_at
            if missing:
                self._world.fail("rolls one voter at a time", f"{what} while {member.name} is missing or not ready")

    def _known_names(self) -> set[str]:
        """The names of voters that are wanted, and have no volume of another cluster."""
        cluster = self._world.cluster()
        wanted = cluster["spec"]["voters"]["replicas"] if cluster is not None else 0
        return {voter_name(self._world.shape.cluster, n) for n in range(wanted) if n not in self._world.foreign}

    def _one_replica_at_a_time(self, operator: Acting, pod: Object) -> None:
        machine = self._world.hardware.machines.get(pod["spec"].get("nodeName", ""))
        ready = self._ready.get(uid_of(pod), NEVER) < operator.pass_at
        if machine is not None and machine.silent_since is not None and uid_of(pod) in self._world.hardware.runtimes:
            node = self._world.api.get("Node", "", machine.name)
            if node is not None and not holds(node, "Ready") and machine.silent_since + 6.0 < operator.pass_at:
                self._world.fail("leaves what is cut off", f"{name_of(pod)} on {machine.name} is deleted")
        pool = {POOL_LABEL: labels_of(pod)[POOL_LABEL]}
        for other in self._world.api.list("Pod", NAMESPACE, pool) if ready else ():
            node = self._world.api.get("Node", "", other["spec"].get("nodeName", ""))
            if other is pod or node is None or not holds(node, "Ready"):
                continue
            if self._unready.get(uid_of(other), NEVER) < operator.pass_at:
                what = f"{name_of(pod)} is replaced while {name_of(other)} is not ready"
                self._world.fail("replaces one replica at a time", what)
        for stateful in self._world.api.list("StatefulSet", NAMESPACE, pool) if ready else ():
            other_name = f"{name_of(stateful)}-0"
            node = self._world.api.get(
                "Node", "", (stateful["metadata"].get("annotations") or {}).get(NODE_ANNOTATION, "")
            )
            if self._gone.get(other_name, NEVER) < operator.pass_at and node is not None and holds(node, "Ready"):
                what = f"{name_of(pod)} is replaced while {other_name} is not made yet"
                self._world.fail("replaces one replica at a time", what)

    # ---- the leader ----------------------------------------------------------------------------------------

    def _leader_has_notice(self, operator: Acting, pod: Object, what: str) -> None:
        """The leader is asked to hand over before its pod goes, if there is anybody who can take over."""
        world = self._world
        if world.calls.lost_request or world.calls.lost_answer or world.disrupted_at >= operator.pass_at:
            return  # the operator may not have seen who can take over
        runtime = world.hardware.runtimes.get(uid_of(pod))
        group = world.groups.get(runtime.disk.cluster_id) if runtime is not None else None
        if runtime is None or group is None or runtime.disk.member_id != group.leader:
            return
        if group.led_at >= operator.pass_at or world.asked_to_hand_over.get(group.leader, -1.0) >= group.led_at:
            return
        if any(other is not runtime for other in self._heirs(operator, group)):
            world.fail("the leader has notice", f"{what} takes the leader, which was not asked to hand over")

    def _heirs(self, operator: Acting, group: Group) -> Iterator[Runtime]:
        for runtime, process in self._world.hardware.processes():
            member = process.disk.member_id
            if (
                member in group.voters
                and process.disk.cluster_id == group.cluster_id
                and process.reachable
                and member not in group.slow
                and group.is_caught_up(process)
                and self._ready.get(runtime.pod_uid, NEVER) < operator.pass_at
            ):
                yield runtime

    # ---- members -------------------------------------------------------------------------------------------

    def before_change(self, group: Group, new: dict[int, Member]) -> None:
        """A voter that is wanted is removed only if its volume is lost. Nothing of a cluster that may not be taken over
        is removed."""
        world = self._world
        gone = [m for m in group.members.values() if m.id not in new and m.voter]
        if gone and group.cluster_id == world.not_to_take:
            world.fail("takes only what it may", f"{gone[0].name} is removed, and nobody said to reduce this cluster")
        cluster = world.cluster()
        if cluster is None or any(self._edited >= operator.pass_at for operator in world.operators):
            return
        for member in gone:
            number = ordinal_of(member.name, voter_name(name_of(cluster)))
            claim = world.api.get("PersistentVolumeClaim", NAMESPACE, f"data-{member.name}")
            volume = world.hardware.volumes.get(uid_of(claim)) if claim is not None else None
            if claim is None or volume is None or going(claim) or number >= cluster["spec"]["voters"]["replicas"]:
                continue
            there = volume.node in ("", *world.hardware.machines) or world.api.get("Node", "", volume.node) is not None
            if volume.disk.member_id == member.id and there:
                world.fail("removes no voter that it needs", f"{member.name} is wanted, and its volume is there")


def _made_from(stateful: Object) -> str:
    return str(stateful["spec"]["template"]["metadata"]["labels"].get(TEMPLATE_LABEL))
