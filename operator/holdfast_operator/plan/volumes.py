"""What volumes say about themselves, and which of them may be deleted.

A volume is deleted only if it is known that its member was removed from this cluster, if it was on a node that is gone
and holds no member, or if the user gave up its cluster by an annotation. A volume that has never been seen with a
process may hold anything, and stays, unless it is younger than the HoldfastCluster and that has not been formed.
"""

from __future__ import annotations

from holdfast_operator.plan.actions import Action, DeletePod, DeleteVolume, Forget, Mark, MarkVolumes, Wait, stalled
from holdfast_operator.plan.facts import WIPE, Desired, Membership, Observed, Run, Volume


def marks(desired: Desired, observed: Observed) -> Action | None:
    """Write down whose the volumes are, so that it is known when their processes do not run. Of an empty one it matters
    only if it is not wanted."""
    due = []
    for ordinal, node in observed.nodes.items():
        volume = observed.volumes.get(ordinal)
        if volume is None or volume.terminating:
            continue
        known = (volume.cluster_id, volume.member_id)
        if not node.cluster_id:
            if known == (0, 0) and ordinal >= desired.replicas:
                due.append(Mark(volume.name, volume.uid, 0, node.volume_id))
            continue
        # A mark of another cluster stays: the volume was filled behind our back, and `foreign` reports it.
        if known != (node.cluster_id, node.member_id) and volume.cluster_id in (0, node.cluster_id):
            due.append(Mark(volume.name, volume.uid, node.cluster_id, node.member_id))
    return MarkVolumes(tuple(due)) if due else None


def clusters_of(observed: Observed) -> dict[int, list[int]]:
    """The ordinals whose volumes or processes belong to a cluster, by cluster id."""
    found: dict[int, set[int]] = {}
    for ordinal, volume in observed.volumes.items():
        if volume.cluster_id:
            found.setdefault(volume.cluster_id, set()).add(ordinal)
    for ordinal, node in observed.nodes.items():
        if node.cluster_id:
            found.setdefault(node.cluster_id, set()).add(ordinal)
    return {cluster: sorted(ordinals) for cluster, ordinals in sorted(found.items())}


def is_empty(observed: Observed, ordinal: int) -> bool:
    """Whether the volume is known to hold nothing, also by its process if that answers."""
    volume, node = observed.volumes.get(ordinal), observed.nodes.get(ordinal)
    marked = volume is not None and not volume.cluster_id and bool(volume.member_id)
    return marked and (node is None or not node.cluster_id)


def was_removed(volume: Volume, observed: Observed, membership: Membership) -> bool:
    """Whether the volume's member belonged to this cluster and does not any more (ids are never used again), or the
    volume was empty when its process last answered, and has not become a member since."""
    ours = volume.cluster_id in (0, observed.cluster_id)
    return ours and bool(volume.member_id) and volume.member_id not in membership.ids


def wipe(desired: Desired, observed: Observed) -> Action | None:
    """Delete what is left of the cluster that the user gave up. One that serves is not given up: see `wipe_refused`."""
    if not desired.wipe or wipe_refused(desired, observed):
        return None
    why = f"the cluster {desired.wipe:016x} was given up by annotation"
    for volume in observed.volumes.values():
        if volume.cluster_id == desired.wipe and not volume.terminating:
            return DeleteVolume(volume.name, volume.uid, why)
    for ordinal, pod in sorted(observed.pods.items()):
        volume_of = observed.volumes.get(ordinal)
        held = pod.node is not None and pod.node.cluster_id == desired.wipe
        going = volume_of is not None and volume_of.cluster_id == desired.wipe
        if (held or going) and not pod.terminating:
            return DeletePod(ordinal, pod.uid, why)
    rest = clusters_of(observed).get(desired.wipe)
    if rest:
        return Wait(
            "Wiping", f"the volumes of cluster {desired.wipe:016x} at the ordinals {shown(rest)} are being deleted"
        )
    return Forget(desired.wipe) if desired.wipe == observed.cluster_id else None


def wipe_refused(desired: Desired, observed: Observed) -> Wait | None:
    """A cluster that answers a linearizable read has all of its data: the annotation is most likely a mistake."""
    if not desired.wipe or desired.wipe != observed.cluster_id or observed.membership is None:
        return None
    return stalled(
        "WipeRefused",
        f"the annotation {WIPE} names the cluster {desired.wipe:016x}, which serves, so nothing is deleted. Take the "
        "annotation away; to give the cluster up all the same, delete the HoldfastCluster and its claims",
    )


def reused(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    """Empty the volume of a removed member that a pod has again, for example after scaling down and up."""
    for ordinal, node in observed.nodes.items():
        pod, volume = observed.pods[ordinal], observed.volumes.get(ordinal)
        held = node.cluster_id == observed.cluster_id and node.member_id not in membership.ids
        if not held:
            continue
        if ordinal >= desired.replicas and ordinal not in membership.by_ordinal:
            continue  # the pod goes with the StatefulSet's size, its volume afterwards
        why = "its member was removed"
        if volume is not None and not volume.terminating and was_removed(volume, observed, membership):
            return DeleteVolume(volume.name, volume.uid, why)
        if volume is None or volume.terminating:
            return DeletePod(ordinal, pod.uid, f"its volume is deleted: {why}")
    return None


def unusable(observed: Observed, membership: Membership) -> Action | None:
    """Free an ordinal whose volume was on a node that is gone, once its member is removed: nobody can read it again."""
    return _free(observed, [o for o, v in observed.volumes.items() if v.lost and o not in membership.by_ordinal])


def never_used(observed: Observed) -> Action | None:
    """The same before a cluster is formed. The volume was made for this HoldfastCluster, so it cannot hold a member."""
    return _free(observed, [o for o, v in observed.volumes.items() if v.lost and v.younger and not v.cluster_id])


def _free(observed: Observed, ordinals: list[int]) -> Action | None:
    """Where no process answers, the volume goes, then its pod, which would keep it."""
    for ordinal in sorted(set(ordinals) - observed.nodes.keys()):
        volume, pod = observed.volumes[ordinal], observed.pods.get(ordinal)
        if not volume.terminating:
            return DeleteVolume(volume.name, volume.uid, "the node that it was on is gone")
        if pod is not None and not pod.terminating and pod.cannot_run:
            return DeletePod(ordinal, pod.uid, "its volume was on a node that is gone")
    return None


def leftovers(desired: Desired, observed: Observed, membership: Membership) -> Action | None:
    """Delete volumes of removed members at ordinals that are not wanted, once their pods are gone."""
    members = membership.by_ordinal
    for ordinal, volume in sorted(observed.volumes.items()):
        if ordinal < desired.replicas or ordinal in members or ordinal in observed.pods or volume.terminating:
            continue
        if was_removed(volume, observed, membership):
            return DeleteVolume(volume.name, volume.uid, _why(volume))
    # The process of a removed member does not start again on its volume, so the volume has to be deleted, too.
    for ordinal, pod in sorted(observed.pods.items()):
        stuck = pod.terminating and pod.run is Run.UNKNOWN  # on a node that does not report: that may take for ever
        if ordinal >= desired.replicas and ordinal not in members and not stuck:
            return Wait("ScalingDown", f"the pod with ordinal {ordinal} is being removed")
    return None


def _why(volume: Volume) -> str:
    return "its member was removed" if volume.cluster_id else "it was empty when its process last answered"


def foreign(observed: Observed) -> dict[int, int]:
    """Ordinals whose process belongs to another cluster, and which. They wait for the user; the others go on."""
    return {o: n.cluster_id for o, n in observed.nodes.items() if n.cluster_id not in (0, observed.cluster_id)}


def shown(ordinals: list[int]) -> str:
    return ", ".join(str(o) for o in ordinals)
