"""Mutants of the planner: what it takes for true, and what it does next."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from holdfast_operator import reconcile_cluster
from holdfast_operator.plan import bootstrap, cluster, membership, roll, safety, volumes
from holdfast_operator.plan.actions import Action, DeletePod, DeleteVolume, EvictPod, Remove, Wait
from holdfast_operator.plan.facts import Desired, Member, Membership, Observed, Pod, Run, Volume
from holdfast_operator.sim.mutants.table import Patch, mutant

# ---- pods that cannot run --------------------------------------------------------------------------------------


@mutant("a pod that cannot run is replaced before the cluster is formed, too", events="image_typo", born_first=0.0)
def _typo_waits_for_the_bootstrap(patch: Patch) -> None:
    original = roll.replace_what_cannot_run

    def replace_what_cannot_run(desired: Desired, observed: Observed) -> Action | None:
        return original(desired, observed) if observed.bootstrapped else None

    patch(cluster, "replace_what_cannot_run", replace_what_cannot_run)


@mutant("a pod that cannot run is replaced without a quorum, too", events="image_typo", voters=1)
def _typo_waits_for_a_quorum(patch: Patch) -> None:
    original = roll.replace_what_cannot_run

    def replace_what_cannot_run(desired: Desired, observed: Observed) -> Action | None:
        return original(desired, observed) if observed.membership is not None else None

    patch(cluster, "replace_what_cannot_run", replace_what_cannot_run)


@mutant("a container in a crash loop does not run", events="image_typo image_typo", voters=1)
def _crash_loop_counts_as_running(patch: Patch) -> None:
    patch(Pod, "cannot_run", property(lambda self: self.node is None and self.run is Run.NEVER))


@mutant("a pod is replaced only if the StatefulSet makes the wanted one", events="impossible_requests")
def _replaces_a_pod_by_its_like(patch: Patch) -> None:
    patch(Observed, "remade", lambda self, desired: True)


# ---- which voters can be spared --------------------------------------------------------------------------------


@mutant(
    "a voter that is not ready for the kubelet may vote",
    events="kubelet_says_unready node_dies new_version new_version",
    voters=3,
    seed=12,
)
def _unready_voter_can_be_spared(patch: Patch) -> None:
    original = safety.can_spare

    def can_spare(observed: Observed, members: Membership, target: Member) -> bool:
        pod = observed.pods.get(target.ordinal)
        return (pod is not None and not pod.ready) or original(observed, members, target)

    patch(roll, "can_spare", can_spare)


@mutant(
    "a voter is stopped only if the others include a majority that serves",
    events="image_typo kubelet_says_unready node_dies",
    voters=3,
    seed=5,
)
def _every_voter_can_be_spared(patch: Patch) -> None:
    patch(roll, "can_spare", lambda observed, members, target: True)


@mutant(
    "a voter that is to be replaced hands over leadership first",
    events="new_version new_version new_version",
    voters=3,
    seed=3,
)
def _leader_does_not_hand_over(patch: Patch) -> None:
    patch(roll, "successor", lambda observed, members, leader: None)


@mutant("a pod that serves is evicted, not deleted", events="new_version")
def _pods_are_deleted_not_evicted(patch: Patch) -> None:
    original = roll.roll

    def roll_(d: Desired, o: Observed, m: Membership, blocked: Collection[int]) -> Action | None:
        action = original(d, o, m, blocked)
        return DeletePod(action.ordinal, action.uid, action.why) if isinstance(action, EvictPod) else action

    patch(cluster, "roll", roll_)


@mutant("each voter is ready before the next one is replaced", events="new_version new_version new_version", voters=5)
def _rolls_several_at_once(patch: Patch) -> None:
    patch(roll, "_ready", lambda pod: True)
    original = roll.roll

    def roll_(d: Desired, o: Observed, m: Membership, blocked: Collection[int]) -> Action | None:
        stay = {n: pod for n, pod in o.pods.items() if not pod.terminating}
        return original(d, replace(o, pods=stay), m, blocked)

    patch(cluster, "roll", roll_)


# ---- membership ------------------------------------------------------------------------------------------------


@mutant(
    "a learner that does not answer holds up nothing",
    events="learner_is_lost other_number learner_is_lost other_number",
    local_volumes=True,
)
def _dead_learner_holds_up_everything(patch: Patch) -> None:
    original = membership.learners

    def learners(desired: Desired, observed: Observed, members: Membership) -> Action | None:
        for learner in (m for m in members.members if not m.voter):
            if learner.ordinal not in observed.nodes:
                return Wait(membership.CATCHING_UP, f"{learner.shown} does not answer")
        return original(desired, observed, members)

    patch(membership, "learners", learners)


@mutant("a voter whose volume was lost joins again under a new id", events="volume_is_lost", seed=1)
def _lost_voter_stays(patch: Patch) -> None:
    patch(membership, "lost", lambda observed, members: None)


@mutant("a voter is lost only if its volume is", events="kubelet_says_unready container_crashes node_dies", seed=1)
def _absent_voter_counts_as_lost(patch: Patch) -> None:
    original = membership.lost

    def lost(observed: Observed, members: Membership) -> Action | None:
        for member in members.voters:
            pod = observed.pods.get(member.ordinal)
            silent = member.ordinal >= 0 and (pod is None or pod.node is None)
            if silent and safety.can_remove(observed, members, member):
                return Remove(member.id, member.shown, members.config_index, "it does not answer")
        return original(observed, members)

    patch(membership, "lost", lost)


@mutant("fewer voters: those of the highest ordinals go", events="other_number other_number other_number", seed=1)
def _surplus_takes_the_lowest(patch: Patch) -> None:
    original = membership.surplus

    def surplus(desired: Desired, observed: Observed, members: Membership) -> Action | None:
        action = original(desired, observed, members)
        low = min(members.voters, key=lambda m: m.ordinal, default=None)
        if isinstance(action, Remove) and low is not None:
            return Remove(low.id, low.shown, action.config_index, action.why)
        return action

    patch(membership, "surplus", surplus)


@mutant("a pod goes after its member was removed", events="other_number other_number other_number", seed=1)
def _pods_go_before_their_members(patch: Patch) -> None:
    _patch_wanted(patch, lambda observed: observed.membership is not None)


@mutant(
    "no pod goes while the members are unknown",
    events="api_is_unreliable other_number other_number other_number",
    voters=5,
    seed=15,
)
def _pods_go_while_the_members_are_unknown(patch: Patch) -> None:
    _patch_wanted(patch, lambda observed: observed.membership is None)


def _patch_wanted(patch: Patch, when: Callable[[Observed], bool]) -> None:
    """Only the spec says how many pods a formed cluster has, in these cases."""
    original = cluster.wanted_pods

    def wanted_pods(desired: Desired, observed: Observed) -> int:
        if observed.bootstrapped and when(observed):
            return desired.replicas
        return original(desired, observed)

    patch(reconcile_cluster, "wanted_pods", wanted_pods)


# ---- volumes ---------------------------------------------------------------------------------------------------


@mutant(
    "volumes say whose they are, whether a process runs on them or not",
    events="delete_and_create delete_and_create delete_and_create",
    voters=3,
)
def _only_processes_say_whose_volumes(patch: Patch) -> None:
    def clusters_of(observed: Observed) -> dict[int, list[int]]:
        return volumes.clusters_of(replace(observed, volumes={}))

    patch(bootstrap, "clusters_of", clusters_of)


@mutant("a cluster is formed only when all wanted pods answer", events="delete_and_create delete_and_create", seed=1)
def _forms_on_the_first_pod(patch: Patch) -> None:
    original = bootstrap.bootstrap

    def bootstrap_(desired: Desired, observed: Observed) -> Action:
        return original(replace(desired, replicas=1), observed)

    patch(cluster, "bootstrap", bootstrap_)


@mutant(
    "the user decides what becomes of more volumes than voters",
    events="delete_and_create delete_and_create delete_and_create",
    voters=3,
)
def _more_volumes_are_taken_over_unasked(patch: Patch) -> None:
    original = bootstrap.bootstrap

    def bootstrap_(desired: Desired, observed: Observed) -> Action:
        found = volumes.clusters_of(observed)
        return original(replace(desired, adopt=next(iter(found), 0)), observed)

    patch(cluster, "bootstrap", bootstrap_)


@mutant("a claim that was never seen with a process stays", events="foreign_volume other_number other_number")
def _unknown_volume_counts_as_removed(patch: Patch) -> None:
    def was_removed(volume: Volume, observed: Observed, members: Membership) -> bool:
        return volume.cluster_id in (0, observed.cluster_id) and volume.member_id not in members.ids

    patch(volumes, "was_removed", was_removed)


@mutant("a volume of another cluster stays", events="foreign_volume other_number other_number")
def _foreign_volume_counts_as_removed(patch: Patch) -> None:
    def reused(desired: Desired, observed: Observed, members: Membership) -> Action | None:
        for ordinal, volume in observed.volumes.items():
            node = observed.nodes.get(ordinal)
            if node is not None and node.cluster_id not in (0, observed.cluster_id) and not volume.terminating:
                return DeleteVolume(volume.name, volume.uid, "it is not ours")
        return None

    patch(volumes, "reused", reused)


@mutant("volumes are marked with what they hold", events="other_number other_number other_number other_number", seed=1)
def _volumes_are_not_marked(patch: Patch) -> None:
    patch(volumes, "marks", lambda desired, observed: None)


@mutant("a volume of a removed member goes", events="other_number other_number other_number other_number")
def _leftovers_stay(patch: Patch) -> None:
    patch(volumes, "leftovers", lambda desired, observed, members: None)


@mutant(
    "a claim that is bound to a node that is gone is freed",
    events="node_is_deleted node_is_deleted",
    local_volumes=True,
    edges=0,
    voters=3,
)
def _unusable_volume_stays(patch: Patch) -> None:
    patch(volumes, "unusable", lambda observed, members: None)


@mutant(
    "a volume of another cluster holds up no other ordinal", events="foreign_volume new_version new_version", seed=1
)
def _foreign_volume_holds_up_the_others(patch: Patch) -> None:
    original = volumes.reused

    def reused(desired: Desired, observed: Observed, members: Membership) -> Action | None:
        if volumes.foreign(observed):
            return Wait(membership.CATCHING_UP, "a volume belongs to another cluster")
        return original(desired, observed, members)

    patch(volumes, "reused", reused)


@mutant(
    "only the volumes of the cluster that was given up are wiped", events="foreign_volume delete_and_create", seed=1
)
def _wipe_takes_all_volumes(patch: Patch) -> None:
    original = volumes.wipe

    def wipe(desired: Desired, observed: Observed) -> Action | None:
        for volume in observed.volumes.values() if desired.wipe else ():
            if volume.cluster_id and not volume.terminating:
                return DeleteVolume(volume.name, volume.uid, "the user wants volumes to be deleted")
        return original(desired, observed)

    patch(volumes, "wipe", wipe)
