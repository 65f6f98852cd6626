"""One pass over one HoldfastCluster: make its objects, observe, plan, take one action, write the status."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable

from holdfast import client

from holdfast_operator import status
from holdfast_operator.act import Actor
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.members import Members, hex_id
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.observe import Observation, observe
from holdfast_operator.plan.actions import Action, TransferLeader, Wait
from holdfast_operator.plan.cluster import Desired, plan, wanted_pods
from holdfast_operator.resources import cluster as resources
from holdfast_operator.resources import tls
from holdfast_operator.resources.common import voter_name

log = logging.getLogger("holdfast.operator")

SOON, LATER = 1.0, 10.0
MembersOf = Callable[[Kube, str, str, bool], Members]  # API server, cluster, namespace, whether there is TLS


class NameConflict(Exception):
    """An object with a name that we need has another owner."""


class ClusterReconciler:
    """State that outlives a pass: connections, applied objects, since when the leader is being asked to transfer."""

    def __init__(self, kube: Kube, namespace: str, name: str, repository: str, members: MembersOf = Members) -> None:
        self._kube = kube
        self._members_of = members
        self.namespace = namespace
        self.name = name
        self._repository = repository
        self._members: Members | None = None
        self._applied: dict[tuple[str, str], Object] = {}
        self._handing_over_since: float | None = None
        self._told = ""
        self.seen: Observation | None = None  # of the last pass

    async def client(self) -> client.Client | None:
        """A client of the leader; None if no member answers."""
        if self.seen is None or self.seen.members is None or self._members is None:
            return None
        for ordinal, node in self.seen.nodes.items():
            if node.member_id == self.seen.members.leader:
                return await self._members.at(ordinal, self.seen.address(ordinal))
        return None

    async def close(self) -> None:
        if self._members is not None:
            await self._members.close()

    async def run(self) -> float | None:
        """One pass. Returns the seconds until the next pass is due; None if the cluster is gone."""
        cluster = await self._kube.get("HoldfastCluster", self.namespace, self.name)
        if cluster is None or "deletionTimestamp" in cluster["metadata"]:
            self.seen = None
            await self.close()
            return None
        spec = ClusterSpec.model_validate(cluster["spec"])
        if spec.paused:
            await self._write_paused(cluster)
            return LATER
        image = resources.image_of(spec, self._repository)
        try:
            await self._make_secrets(cluster, spec)
            if self._members is None:
                self._members = self._members_of(self._kube, self.name, self.namespace, spec.tls.mode == "SelfManaged")
            expired = self._handing_over_since is not None and (
                time.monotonic() - self._handing_over_since > spec.rollout.leaderTransferTimeoutSeconds
            )
            seen = self.seen = await observe(self._kube, cluster, self._members, transfer_expired=expired)
            desired = Desired(spec.voters.replicas, resources.voter_template(self.name, self.namespace, spec, image))
            await self._make_objects(cluster, spec, image, wanted_pods(desired, seen.plan), seen)
        except NameConflict as conflict:
            await self._write_conflict(cluster, str(conflict))
            return LATER
        action = plan(desired, seen.plan)
        trouble = await self._act(cluster, spec, seen, action)
        await self._write_status(cluster, spec, seen, desired, action, trouble)
        if isinstance(action, Wait):
            return LATER if not action.progressing else SOON
        return 0.2 if not trouble else SOON

    # ---- objects -------------------------------------------------------------------------------------------

    async def _make_secrets(self, cluster: Object, spec: ClusterSpec) -> None:
        """Make each Secret once. The CA comes first, because it issues all other certificates."""
        if spec.tls.mode != "SelfManaged" or ("Secret", "all") in self._applied:
            return
        name = tls.ca_secret(self.name)
        ca = await self._kube.get("Secret", self.namespace, name)
        if ca is None:
            certificate, key = tls.make_ca(self.name)
            ca = await self._create(cluster, tls.secret(cluster, name, certificate, key, certificate))
        self._check_owner(cluster, ca)
        certificate, key = (base64.b64decode(ca["data"][k]) for k in ("tls.crt", "tls.key"))
        for secret in tls.all_secrets(cluster, certificate, key):
            there = await self._kube.get("Secret", self.namespace, secret["metadata"]["name"])
            if there is None:
                await self._create(cluster, secret)
            else:
                self._check_owner(cluster, {**there, "kind": "Secret"})
        self._applied["Secret", "all"] = {}

    async def _make_objects(self, cluster: Object, spec: ClusterSpec, image: str, pods: int, seen: Observation) -> None:
        voters = len([m for m in seen.plan.membership.members if m.voter]) if seen.plan.membership else 0
        budget = resources.disruption_budget(cluster, voters, spec.voters.replicas)
        wanted = [
            *resources.services(cluster),
            *([budget] if budget else []),
            resources.voters(cluster, spec, image, pods),
        ]
        for obj in wanted:
            await self._ensure(cluster, obj)

    async def _ensure(self, cluster: Object, obj: Object) -> None:
        """Create the object, or apply it if it is ours. Does nothing if the same object was applied before."""
        kind, name = obj["kind"], obj["metadata"]["name"]
        if self._applied.get((kind, name)) == obj:
            return
        there = await self._kube.get(kind, self.namespace, name)
        if there is None:
            await self._create(cluster, obj)
        else:
            self._check_owner(cluster, {**there, "kind": kind})
            if kind == "StatefulSet":
                # A changed claim template would make the whole apply fail, so the live one is kept.
                obj = {**obj, "spec": {**obj["spec"], "volumeClaimTemplates": _bare_claims(there)}}
            await self._kube.apply(kind, self.namespace, obj)
        self._applied[kind, name] = obj

    async def _create(self, cluster: Object, obj: Object) -> Object:
        try:
            return await self._kube.create(obj["kind"], self.namespace, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            there = await self._kube.get(obj["kind"], self.namespace, obj["metadata"]["name"])
            assert there is not None
            self._check_owner(cluster, {**there, "kind": obj["kind"]})
            return there

    @staticmethod
    def _check_owner(cluster: Object, obj: Object) -> None:
        owners = obj["metadata"].get("ownerReferences", [])
        if not any(o.get("controller") and o["uid"] == cluster["metadata"]["uid"] for o in owners):
            kind = obj.get("kind", "object")
            raise NameConflict(
                f"the {kind} {obj['metadata']['name']} exists and is not ours; rename it, or this cluster"
            )

    # ---- action --------------------------------------------------------------------------------------------

    async def _act(self, cluster: Object, spec: ClusterSpec, seen: Observation, action: Action) -> str:
        """Execute the action. Returns the error, if there was one; the next pass observes and plans anew."""
        assert self._members is not None
        if isinstance(action, TransferLeader):
            self._handing_over_since = self._handing_over_since or time.monotonic()
        elif not isinstance(action, Wait):
            self._handing_over_since = None
        if not isinstance(action, Wait):
            log.info("%s/%s: %s", self.namespace, self.name, action)
        try:
            actor = Actor(self._kube, self._members, cluster, seen, spec.tls.mode == "SelfManaged")
            await actor.carry_out(action)
        except (client.ClientError, ApiError) as error:
            log.warning("%s/%s: %s: %s", self.namespace, self.name, type(action).__name__, error)
            return f"{type(action).__name__}: {error}"
        return ""

    # ---- status --------------------------------------------------------------------------------------------

    async def _write_status(
        self, cluster: Object, spec: ClusterSpec, seen: Observation, desired: Desired, action: Action, trouble: str
    ) -> None:
        before = cluster.get("status", {})
        membership = seen.plan.membership
        members = (
            [
                {
                    "id": hex_id(m.id),
                    "name": voter_name(self.name, m.ordinal) if m.ordinal >= 0 else "",
                    "role": "voter" if m.voter else "learner",
                    "ready": m.ordinal in seen.plan.pods and seen.plan.pods[m.ordinal].ready,
                }
                for m in sorted(membership.members, key=lambda m: m.ordinal)
            ]
            if membership
            else before.get("members", [])
        )
        voters = [m for m in members if m["role"] == "voter"]
        ready = sum(1 for m in voters if m["ready"])
        current = [n for n, p in seen.plan.pods.items() if p.template == desired.template]
        updated = len(current) == len(seen.plan.pods) == desired.replicas
        pools = await self._kube.list("HoldfastEdgePool", self.namespace)
        total = sum(
            p.get("status", {}).get("replicas", 0) for p in pools if p["spec"]["clusterRef"]["name"] == self.name
        )
        wait = action if isinstance(action, Wait) else None
        progressing = wait is None or wait.progressing
        reason = wait.reason if wait else type(action).__name__
        message = trouble or (wait.message if wait else f"carrying out: {action}")
        good = 2 * (ready - 1) > len(voters) if len(voters) > 1 else False
        conditions = [
            status.condition(
                cluster,
                "Available",
                membership is not None if before.get("bootstrapped") or membership else False,
                "LinearizableReadOK" if membership else ("NoQuorum" if before.get("bootstrapped") else "NotFormed"),
                "a linearizable read is answered" if membership else message,
            ),
            status.condition(cluster, "Progressing", progressing, reason, message),
            status.condition(
                cluster,
                "FaultTolerant",
                good,
                "CanLoseOne" if good else "CannotLoseOne",
                f"{ready} of {len(voters)} voters are ready",
            ),
            status.condition(
                cluster,
                "UpToDate",
                updated,
                "AllCurrent" if updated else "RollingOut",
                f"{len(current)} of {desired.replicas} pods are of the wanted template",
            ),
            status.condition(cluster, "Paused", False, "NotPaused", "the operator works"),
        ]
        leader = next((m["name"] for m in members if membership and m["id"] == hex_id(membership.leader)), None)
        latched = {k: before.get(k) for k in ("clusterID", "seed", "bootstrapped")}
        await self._write(
            cluster,
            {
                "observedGeneration": cluster["metadata"]["generation"],
                **latched,
                "configIndex": membership.config_index if membership else before.get("configIndex"),
                "leader": leader,
                "currentVersion": self._version(spec) if updated else before.get("currentVersion"),
                "voters": len(voters),
                "readyVoters": ready,
                "votersSummary": f"{ready}/{desired.replicas}",
                "edgeSummary": f"{len(seen.replicas)}/{total}",
                "members": members,
                "conditions": conditions,
            },
        )
        if trouble and trouble != self._told:
            await self._kube.event(cluster, "Warning", "ActionFailed", trouble)
        self._told = trouble

    def _version(self, spec: ClusterSpec) -> str:
        return spec.version or (spec.image or "").rpartition(":")[2]

    async def _write_paused(self, cluster: Object) -> None:
        before = cluster.get("status", {})
        kept = [c for c in before.get("conditions", []) if c["type"] != "Paused"]
        paused = status.condition(cluster, "Paused", True, "SpecPaused", "spec.paused is set: nothing is changed")
        await self._write(cluster, {**before, "conditions": [*kept, paused]})

    async def _write_conflict(self, cluster: Object, message: str) -> None:
        before = cluster.get("status", {})
        kept = [c for c in before.get("conditions", []) if c["type"] not in ("Progressing", "Available")]
        conflict = [
            status.condition(cluster, "Available", False, "NameConflict", message),
            status.condition(cluster, "Progressing", False, "NameConflict", message),
        ]
        await self._write(cluster, {**before, "conditions": [*conflict, *kept]})

    async def _write(self, cluster: Object, wanted: Object) -> None:
        try:
            await status.write(self._kube, cluster, wanted)
        except ApiError as error:
            if error.reason not in ("Conflict", "NotFound"):
                raise  # the object changed meanwhile: the next pass writes the status


def _bare_claims(stateful_set: Object) -> list[Object]:
    """The claim templates of a live StatefulSet, without what the API server added."""
    return [
        {"metadata": {"name": c["metadata"]["name"]}, "spec": c["spec"]}
        for c in stateful_set["spec"]["volumeClaimTemplates"]
    ]
