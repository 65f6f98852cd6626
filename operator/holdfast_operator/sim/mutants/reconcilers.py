"""Mutants of what is around the planner: what is observed, objects and their owners, pools, configurations, events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.message import Message
from holdfast import client

from holdfast_operator import (
    children,
    objects,
    observe,
    reconcile_cluster,
    reconcile_config,
    reconcile_pool,
    status,
)
from holdfast_operator.act import Actor
from holdfast_operator.cluster_loop import ClusterLoop
from holdfast_operator.cluster_status import cluster_status
from holdfast_operator.kube import Kube, Object
from holdfast_operator.model import parse
from holdfast_operator.model.config import ConfigSpec
from holdfast_operator.objects import APPLIED
from holdfast_operator.plan.actions import Action, TransferLeader
from holdfast_operator.plan.pool import Replica
from holdfast_operator.pods import is_unschedulable
from holdfast_operator.reconcile_cluster import ForPools
from holdfast_operator.reconcile_config import ConfigReconciler
from holdfast_operator.reconcile_pool import PoolReconciler
from holdfast_operator.resources import authority, certificates
from holdfast_operator.resources.authority import Authority, CertificateTrouble
from holdfast_operator.resources.certificates import Wanted
from holdfast_operator.resources.common import template_hash
from holdfast_operator.resources.pods import Template
from holdfast_operator.resources.pool import RELAY_LABEL
from holdfast_operator.sim.mutants.table import Patch, mutant

# ---- what is observed ------------------------------------------------------------------------------------------


@mutant(
    "a volume on a node that is gone is lost",
    events="node_is_deleted node_is_deleted",
    local_volumes=True,
    edges=0,
    voters=3,
)
def _gone_node_is_not_noticed(patch: Patch) -> None:
    async def lost(kube: Kube, pods: list[Object], claims: list[Object]) -> set[str]:
        return set()

    patch(observe, "_lost", lost)


@mutant("a volume is lost only if its node is gone", events="drain drain node_dies too_large_requests", seed=3)
def _unschedulable_counts_as_lost(patch: Patch) -> None:
    async def lost(kube: Kube, pods: list[Object], claims: list[Object]) -> set[str]:
        waiting = {f"data-{pod['metadata']['name']}" for pod in pods if is_unschedulable(pod)}
        return {c["metadata"]["name"] for c in claims if c["metadata"]["name"] in waiting}

    patch(observe, "_lost", lost)


@mutant("only the leader knows who has caught up", seed=3)
def _any_member_says_who_has_caught_up(patch: Patch) -> None:
    async def membership(members: Any, nodes: Any, addresses: Any, cluster_id: int) -> Message | None:
        for ordinal in sorted(nodes):
            found: Message | None = await members.membership(ordinal, addresses[ordinal])
            if found is not None:
                return found
        return None

    patch(observe, "_membership", membership)


# ---- objects ---------------------------------------------------------------------------------------------------


@mutant("only objects of ours are changed", events="name_is_taken name_is_taken")
def _owners_are_not_checked(patch: Patch) -> None:
    patch(objects, "check_owner", lambda owner, obj: None)


@mutant("a field that was changed by hand is put back", events="change_child")
def _drift_stays(patch: Patch) -> None:
    def is_applied(marked: Object, live: Object) -> bool:
        found = (live["metadata"].get("annotations") or {}).get(APPLIED)
        return bool(found == marked["metadata"]["annotations"][APPLIED])

    patch(objects, "is_applied", is_applied)
    patch(objects, "_is_exact", lambda wanted, live: True)


@mutant("an object that is as wanted is not written", events="")
def _applies_every_time(patch: Patch) -> None:
    patch(objects, "is_applied", lambda marked, live: False)


@mutant("a single voter has no disruption budget", events="other_number other_number other_number", seed=3)
def _budget_of_a_single_voter_stays(patch: Patch) -> None:
    async def ensure_absent(kube: Kube, owner: Object, kind: str, name: str) -> Object | None:
        return None

    patch(children, "ensure_absent", ensure_absent)


@mutant("a name that is taken holds up only what needs it", events="name_is_taken new_version other_number", seed=1)
def _one_refused_object_holds_up_all(patch: Patch) -> None:
    original = objects.ensure

    async def ensure(kube: Kube, owner: Object, wanted: Object) -> Object:
        try:
            return await original(kube, owner, wanted)
        except objects.NotOurs as error:
            raise CertificateTrouble(str(error)) from error

    patch(children, "ensure", ensure)


# ---- certificates ----------------------------------------------------------------------------------------------


@mutant("a damaged certificate is issued anew", events="damage_secret", tls=True)
def _damaged_certificate_stays(patch: Patch) -> None:
    original = certificates.due

    def due(secret: Object | None, wanted: Wanted, ca: Any, now: datetime) -> str:
        return original(secret, wanted, ca, now) if secret is None else ""

    patch(certificates, "due", due)


@mutant("a cluster with certificates gets no other CA", events="lose_ca", tls=True)
def _lost_ca_is_replaced(patch: Patch) -> None:
    original = authority.load

    def load(cluster: Object, secret: Object | None, others: Any, now: datetime) -> Authority | None:
        return original(cluster, secret, [], now)

    patch(authority, "load", load)


# ---- pools -----------------------------------------------------------------------------------------------------


@mutant("the replica of a node that left goes", events="node_is_deleted node_is_deleted node_is_deleted", edges=3)
def _replica_of_a_gone_node_stays(patch: Patch) -> None:
    async def prune(self: PoolReconciler, pool: Object, live: dict[str, Object], wanted: dict[str, Object]) -> None:
        pass

    patch(PoolReconciler, "_prune", prune)


@mutant("a replica that does not run is replaced, whatever the others do", events="image_typo image_typo", edges=3)
def _idle_replica_waits_for_the_others(patch: Patch) -> None:
    def replace_one(replicas: Sequence[Replica], *, missing: bool = False) -> Replica | None:
        if any(not r.ready for r in replicas):
            return None
        return next((r for r in replicas if r.outdated), None)

    patch(reconcile_pool, "replace_one", replace_one)


@mutant("replicas are replaced one at a time", events="new_version new_version", edges=3)
def _replicas_are_replaced_together(patch: Patch) -> None:
    def replace_one(replicas: Sequence[Replica], *, missing: bool = False) -> Replica | None:
        return next((r for r in replicas if r.outdated and not r.terminating), None)

    patch(reconcile_pool, "replace_one", replace_one)


@mutant(
    "none is replaced while another one is not made yet", events="other_relays node_is_deleted " * 3, edges=3, seed=1
)
def _missing_replicas_do_not_count(patch: Patch) -> None:
    def is_missing(pool: str, nodes: dict[str, Object], found: Iterable[Replica]) -> bool:
        return False

    patch(reconcile_pool, "_is_missing", is_missing)


@mutant(
    "a replica on a node that is cut off stays",
    edges=3,
    relays=0,
    events="node_is_cut_off node_is_cut_off new_version",
    seed=1,
)
def _cut_off_replica_is_replaced(patch: Patch) -> None:
    def replace_one(replicas: Sequence[Replica], *, missing: bool = False) -> Replica | None:
        outdated = [r for r in replicas if r.outdated and not r.terminating]
        return next((r for r in outdated if not r.reachable), None) or next(iter(outdated), None)

    patch(reconcile_pool, "replace_one", replace_one)


@mutant("a paused cluster's pools rest", events="pause new_version pause new_version node_is_deleted", edges=3)
def _paused_pools_go_on(patch: Patch) -> None:
    original = PoolReconciler.run

    async def run(self: PoolReconciler, pool: Object, cluster: ForPools | None, reports: Any) -> float | None:
        if cluster is not None and cluster.spec.paused:
            cluster = ForPools(cluster.spec.model_copy(update={"paused": False}), cluster.rollout, cluster.authority)
        return await original(self, pool, cluster, reports)

    patch(PoolReconciler, "run", run)


@mutant(
    "a replica that becomes a relay, or is one no longer, is made anew",
    events="other_relays " * 3,
    edges=3,
    relays=0,
    seed=1,
)
def _relay_has_the_hash_of_others(patch: Patch) -> None:
    def hash_(self: Template) -> str:
        labels = {key: value for key, value in self.labels.items() if key != RELAY_LABEL}
        return template_hash({"pod": self.pod, "labels": labels, "annotations": self.annotations})

    patch(Template, "hash", property(hash_))


@mutant("the certificate of a relay has the name that others reach it by", events="", edges=3, relays=1, tls=True)
def _relay_has_the_certificate_of_others(patch: Patch) -> None:
    original = PoolReconciler._ensure_certificates

    async def ensure(
        self: PoolReconciler,
        pool: Object,
        cluster: ForPools,
        new: list[str],
        replicas: list[str],
        relays: Any,
        site: Any,
    ) -> None:
        await original(self, pool, cluster, new, replicas, frozenset(), site)

    patch(PoolReconciler, "_ensure_certificates", ensure)


@mutant("the Service of the relays goes when none are wanted", events="other_relays " * 4, edges=3, relays=2, seed=5)
def _service_of_relays_stays(patch: Patch) -> None:
    async def ensure_absent(kube: Kube, owner: Object, kind: str, name: str) -> Object | None:
        return None

    patch(reconcile_pool, "ensure_absent", ensure_absent)


# ---- configurations --------------------------------------------------------------------------------------------


@mutant(
    "a configuration of many keys is written in nested transactions", events="new_config_data " * 6, configs=1, seed=2
)
def _config_in_one_flat_transaction(patch: Patch) -> None:
    patch(reconcile_config, "_nested", lambda ops: ops)


@mutant("keys that leave a configuration are removed", events="new_config_data new_config_data", configs=1)
def _keys_that_left_stay(patch: Patch) -> None:
    patch(reconcile_config, "_owned", lambda record_key, value: [])


@mutant("keys of others may be anything", events="foreign_key new_config_data", configs=1)
def _keys_have_to_be_text(patch: Patch) -> None:
    original = ConfigReconciler._put

    async def put(self: ConfigReconciler, hf: client.Client, name: str, spec: ConfigSpec, known: int) -> int:
        for kv in (await hf.range(spec.prefix, prefix=True)).kvs:
            kv.key.decode()
        return await original(self, hf, name, spec, known)

    patch(ConfigReconciler, "_put", put)


@mutant("a field that the operator does not know is ignored", events="newer_field")
def _unknown_field_is_an_error(patch: Patch) -> None:
    original = parse._tolerant

    def tolerant(model: Any, given: Any, part: str) -> Any:
        found = original(model, given, part)
        if found.unknown:
            raise parse.InvalidSpec(f"unknown fields: {found.unknown}")
        return found

    patch(parse, "_tolerant", tolerant)


# ---- status, events, the loop ----------------------------------------------------------------------------------


@mutant("a status that has not changed is not written", events="")
def _status_is_written_every_time(patch: Patch) -> None:
    async def write(kube: Kube, obj: Object, wanted: dict[str, Any]) -> None:
        told = {key: value for key, value in wanted.items() if value is not None}
        answer = await kube.update_status(obj, told)
        obj["status"] = told
        obj["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"]

    patch(status, "write", write)


@mutant("what changes with every write to the store is no status", events="")
def _status_shows_the_revision(patch: Patch) -> None:
    def status_(cluster: Object, spec: Any, seen: observe.Observation, *rest: Any) -> Object:
        applied = max((node.applied_index for node in seen.nodes.values()), default=0)
        return {**cluster_status(cluster, spec, seen, *rest), "appliedIndex": applied}

    patch(reconcile_cluster, "cluster_status", status_)


@mutant(
    "an event is recorded after the action, at best effort",
    events="events_are_refused new_version new_version new_version",
    voters=3,
    seed=6,
)
def _events_come_before_actions(patch: Patch) -> None:
    original = Actor.carry_out

    async def carry_out(self: Actor, action: Action) -> None:
        if isinstance(action, TransferLeader):
            await self._kube.event(self._cluster, "Normal", "LeaderHandsOver", action.why)
        await original(self, action)

    patch(Actor, "carry_out", carry_out)


@mutant("what happens during a pass leads to another one", events="new_version pause other_number", seed=1)
def _wakes_during_a_pass_are_lost(patch: Patch) -> None:
    original = ClusterLoop._pass

    async def one_pass(self: ClusterLoop) -> float | None:
        delay = await original(self)
        self.woken.clear()
        return None if delay is None else delay * 100

    patch(ClusterLoop, "_pass", one_pass)
