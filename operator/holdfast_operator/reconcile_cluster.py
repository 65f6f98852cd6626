"""One pass over one HoldfastCluster: observe, keep its objects, plan, take one action, write the status."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast import client
from holdfast.proto import holdfast_pb2

from holdfast_operator import status
from holdfast_operator.act import Actor
from holdfast_operator.children import ensure_certificates, ensure_children
from holdfast_operator.cluster_status import cluster_status
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.members import Members, from_hex
from holdfast_operator.model.cluster import ClusterSpec, ClusterStatus, RolloutStatus
from holdfast_operator.model.common import dump
from holdfast_operator.model.parse import InvalidSpec, parse, parse_status
from holdfast_operator.objects import Leaving, NotOurs
from holdfast_operator.observe import Observation, observe
from holdfast_operator.plan.actions import Action, TransferLeader, Wait
from holdfast_operator.plan.cluster import ADOPT, WIPE, plan, wanted_pods
from holdfast_operator.plan.facts import Desired
from holdfast_operator.resources import cluster as resources
from holdfast_operator.resources.authority import Authority, CertificateTrouble
from holdfast_operator.resources.common import operator_secret
from holdfast_operator.resources.rendering import UnknownRendering, latched

log = logging.getLogger("holdfast.operator")

NOW, SOON, RETRY, LATER = 0.2, 1.0, 5.0, 60.0  # seconds until the next pass, if no event comes before
MembersOf = Callable[[Kube, str, str, bool], Members]  # API server, cluster, namespace, whether there is TLS
ActorOf = Callable[[Kube, Members, Object, Observation, bool], Actor]


@dataclass(frozen=True, slots=True)
class ForPools:
    spec: ClusterSpec
    rollout: RolloutStatus
    authority: Authority | None  # None: no TLS, or the certificates could not be kept in this pass


class ClusterReconciler:
    """What outlives a pass: connections, and since when the leader is being asked to transfer. It belongs to one object
    by uid: a cluster of the same name that is made later begins with nothing."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        repository: str,
        members: MembersOf = Members,
        actor: ActorOf = Actor,
    ) -> None:
        self._kube = kube
        self._members_of = members
        self._actor_of = actor
        self.namespace = namespace
        self.name = name
        self._repository = repository
        self._uid = ""
        self._members: Members | None = None
        self._handing_over_since: float | None = None
        self._told = ""
        self.seen: Observation | None = None  # of this pass; None: the cluster could not be observed
        # Of this pass; None: there is no cluster, or its spec cannot be used.
        self.spec: ClusterSpec | None = None
        self.rollout: RolloutStatus | None = None
        self.authority: Authority | None = None

    @property
    def paused(self) -> bool:
        return self.spec is not None and self.spec.paused

    @property
    def for_pools(self) -> ForPools | None:
        """What the pools of this cluster need from it; None if there is no cluster that can be used."""
        if self.spec is None or self.rollout is None:
            return None
        return ForPools(self.spec, self.rollout, self.authority)

    @property
    def reports(self) -> list[holdfast_pb2.ReplicaReport] | None:
        """What the members report about the edge replicas; None if none answers."""
        return self.seen.replicas if self.seen is not None and self.seen.nodes else None

    async def client(self) -> client.Client | None:
        """A client of the leader; None if no member answers."""
        if self.seen is None or self.seen.members is None or self._members is None:
            return None
        for ordinal, node in self.seen.nodes.items():
            if node.member_id == self.seen.members.leader:
                return await self._members.at(ordinal, self.seen.address(ordinal))
        return None

    async def close(self) -> None:
        members, self._members = self._members, None
        self.seen, self._handing_over_since, self._told, self._uid = None, None, "", ""
        if members is not None:
            await members.close()

    async def run(self, pools: Sequence[Object] = ()) -> float | None:
        """One pass. `pools`: those of this cluster. Returns the seconds until the next pass is due; None if the cluster
        is gone."""
        self.seen = self.spec = self.rollout = self.authority = None
        cluster = await self._kube.get("HoldfastCluster", self.namespace, self.name)
        if cluster is None or "deletionTimestamp" in cluster["metadata"]:
            await self.close()
            return None
        if cluster["metadata"]["uid"] != self._uid:
            await self.close()
            self._uid = cluster["metadata"]["uid"]
        try:
            return await self._pass(cluster, pools)
        except InvalidSpec as error:
            await self._stalled(cluster, "InvalidSpec", f"this operator cannot use the object: {error}")
        except (UnknownRendering, CertificateTrouble, NotOurs) as error:
            await self._stalled(cluster, type(error).__name__, str(error))
        except Leaving as leaving:
            await self._waiting(cluster, "WaitingForDeletion", str(leaving))
            return SOON
        except ApiError as error:
            if error.passes:
                raise  # the loop tries again
            await self._stalled(cluster, "Refused", str(error))
        return LATER

    async def _pass(self, cluster: Object, pools: Sequence[Object]) -> float:
        parsed = parse(ClusterSpec, cluster)
        spec = self.spec = parsed.spec
        tls = spec.tls.mode == "SelfManaged"
        if self._members is None:
            self._members = self._members_of(self._kube, self.name, self.namespace, tls)
        if tls:
            await self._members.trust(await self._kube.get("Secret", self.namespace, operator_secret(self.name)))
        seen = self.seen = await observe(self._kube, cluster, self._members, transfer_expired=self._expired(spec))
        rollout = self.rollout = latched(spec, parse_status(ClusterStatus, cluster), seen.image, self._repository)
        desired = self._desired(cluster, spec, rollout)
        replicas = sum(pool.get("status", {}).get("replicas", 0) for pool in pools)
        if spec.paused:
            await self._write_paused(cluster, spec, seen, desired, replicas)
            return LATER
        await self._latch(cluster, rollout)
        self.authority = await ensure_certificates(self._kube, cluster, spec, rollout, pools)
        action = plan(desired, seen.plan)
        pods = wanted_pods(desired, seen.plan)
        troubles = await ensure_children(self._kube, cluster, spec, rollout, pods, seen.plan)
        failed = await self._act(cluster, tls, seen, action)
        troubles += [failed] if failed else []
        told = cluster_status(cluster, spec, seen, desired, action, troubles, replicas)
        if parsed.unknown:
            why = f"{', '.join(parsed.unknown)}: this operator is older than the CRD, and ignores these fields"
            told["conditions"].append(status.condition(cluster, "SpecUnderstood", False, "UnknownFields", why))
        await status.tell(self._kube, cluster, told)
        await self._warn(cluster, "; ".join(troubles))
        if troubles:
            return RETRY
        if isinstance(action, Wait):
            return LATER if not action.progressing else RETRY if action.stalled else SOON
        return NOW

    async def _latch(self, cluster: Object, rollout: RolloutStatus) -> None:
        """Record what the pods are made from before any is made or changed."""
        wanted = dump(rollout)
        before = cluster.get("status", {})
        if before.get("rollout") != wanted:
            await status.write(self._kube, cluster, {**before, "rollout": wanted})

    def _desired(self, cluster: Object, spec: ClusterSpec, rollout: RolloutStatus) -> Desired:
        annotations = cluster["metadata"].get("annotations") or {}
        template = resources.voter_template(self.name, self.namespace, spec, rollout.image, rollout.rendering)
        adopt, wipe = (_cluster_id(annotations.get(key, "")) for key in (ADOPT, WIPE))
        return Desired(spec.voters.replicas, template, adopt, wipe)

    def _expired(self, spec: ClusterSpec) -> bool:
        since = self._handing_over_since
        return since is not None and get_running_loop().time() - since > spec.rollout.leaderTransferTimeoutSeconds

    async def _act(self, cluster: Object, tls: bool, seen: Observation, action: Action) -> str:
        """Execute the action. Returns the error, if there was one; the next pass observes and plans anew."""
        assert self._members is not None
        if isinstance(action, TransferLeader):
            self._handing_over_since = self._handing_over_since or get_running_loop().time()
        elif not isinstance(action, Wait):
            self._handing_over_since = None
        if not isinstance(action, Wait):
            log.info("%s/%s: %s", self.namespace, self.name, action)
        try:
            await self._actor_of(self._kube, self._members, cluster, seen, tls).carry_out(action)
        except (client.ClientError, ApiError) as error:
            log.warning("%s/%s: %s: %s", self.namespace, self.name, type(action).__name__, error)
            return f"{type(action).__name__}: {error}"
        return ""

    # ---- status --------------------------------------------------------------------------------------------

    async def _write_paused(
        self, cluster: Object, spec: ClusterSpec, seen: Observation, desired: Desired, edge_replicas: int
    ) -> None:
        """The status stays true while nothing is changed."""
        why = "spec.paused is set: nothing is changed"
        resting = Wait("SpecPaused", why, progressing=False)
        told = cluster_status(cluster, spec, seen, desired, resting, [], edge_replicas)
        paused = status.condition(cluster, "Paused", True, "SpecPaused", why)
        kept = [c for c in told["conditions"] if c["type"] != "Paused"]
        await status.tell(self._kube, cluster, {**told, "conditions": [*kept, paused]})

    async def _stalled(self, cluster: Object, reason: str, message: str) -> None:
        conditions = [
            *status.ready(cluster, False, reason, message, progressing=False, stalled=True),
            status.condition(cluster, "Progressing", False, reason, message),
        ]
        await status.tell(self._kube, cluster, status.with_conditions(cluster, conditions))
        await self._warn(cluster, message)

    async def _waiting(self, cluster: Object, reason: str, message: str) -> None:
        conditions = [
            *status.ready(cluster, False, reason, message, progressing=True, stalled=False),
            status.condition(cluster, "Progressing", True, reason, message),
        ]
        await status.tell(self._kube, cluster, status.with_conditions(cluster, conditions))

    async def _warn(self, cluster: Object, trouble: str) -> None:
        """Record a warning once, at best effort."""
        if trouble and trouble != self._told:
            try:
                await self._kube.event(cluster, "Warning", "ActionFailed", trouble)
            except (ApiError, OSError, TimeoutError) as error:
                log.warning("%s/%s: no event could be recorded: %s", self.namespace, self.name, error)
        self._told = trouble


def _cluster_id(text: str) -> int:
    """A cluster id that a user wrote in an annotation; 0 if it is not one."""
    try:
        return from_hex(text.strip())
    except ValueError:
        return 0
