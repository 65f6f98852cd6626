"""How a cluster begins: a new one is formed, or the one that the volumes belong to is taken over.

A cluster is never formed while a volume belongs to one, and what volumes hold is never given up without the user.
"""

from __future__ import annotations

from holdfast_operator.plan.actions import Action, Form, Record, RecordBootstrapped, Wait, stalled
from holdfast_operator.plan.facts import ADOPT, WIPE, Desired, Observed
from holdfast_operator.plan.volumes import clusters_of, never_used, shown


def bootstrap(desired: Desired, observed: Observed) -> Action:
    found = clusters_of(observed)
    if found:
        return _take_over(desired, observed, found)
    unusable = never_used(observed)
    if unusable is not None:
        return unusable
    nodes = observed.nodes
    missing = [n for n in range(desired.replicas) if n not in nodes]
    lost = [v.name for n in missing if (v := observed.volumes.get(n)) is not None and v.lost and not v.younger]
    if lost:
        return stalled(
            "VolumeOnLostNode",
            f"the volumes of {', '.join(lost)} are on nodes that are gone, and these claims are older than this "
            "HoldfastCluster, so they may hold an earlier cluster: none is formed. Bring the nodes back, or delete the "
            "claims and their pods",
        )
    if missing:
        troubles = [
            f"{n} ({observed.pods[n].trouble})" for n in missing if n in observed.pods and observed.pods[n].trouble
        ]
        names = ", ".join(troubles or [str(n) for n in missing])
        message = f"waiting for the pods with ordinal {names} to answer before forming the cluster"
        return Wait("WaitingForPods", message, stalled=bool(troubles))
    for ordinal, node in nodes.items():
        if observed.cluster_id and node.volume_id == observed.seed:
            return Form(ordinal, observed.cluster_id, node.volume_id)
    # No node belongs to a cluster, and the recorded seed, if there is one, is gone. The seed has served no client, so
    # another node may become the seed.
    return Record(observed.fresh_id, nodes[0].volume_id)


def _take_over(desired: Desired, observed: Observed, found: dict[int, list[int]]) -> Action:
    """Adopt the cluster that the volumes belong to, whatever was lost; never form another one beside it."""
    if len(found) > 1:
        every = "; ".join(f"{cluster:016x} at ordinals {shown(ordinals)}" for cluster, ordinals in found.items())
        return stalled(
            "ClusterIDMismatch",
            f"the volumes belong to different clusters ({every}); nothing is changed. Delete the volumes that are not "
            f"wanted, or set the annotation {WIPE} to the id of the cluster whose volumes may be deleted",
        )
    ((cluster_id, ordinals),) = found.items()
    beyond = [o for o in ordinals if o >= desired.replicas]
    if beyond and desired.adopt != cluster_id:
        return stalled(
            "MoreVolumesThanVoters",
            f"the volumes at ordinals {shown(ordinals)} belong to the cluster {cluster_id:016x}, and "
            f"{desired.replicas} voters are wanted. To take it over and then reduce it, set the annotation {ADOPT} to "
            f"{cluster_id:016x}; to delete these volumes and begin anew, set {WIPE} to it; or want more voters",
        )
    nodes = {o: n for o, n in observed.nodes.items() if n.cluster_id == cluster_id}
    if not nodes and all(n in observed.nodes for n in range(desired.replicas)):
        return stalled(
            "DataLost",
            f"the volumes at ordinals {shown(ordinals)} held the cluster {cluster_id:016x}, and are empty now; "
            f"nothing is changed. Put volumes back that hold it, or set {WIPE} to {cluster_id:016x} to begin anew",
        )
    if not nodes:
        return Wait("WaitingForPods", f"waiting for the pods of cluster {cluster_id:016x} to answer")
    if cluster_id != observed.cluster_id:
        node = min(nodes.values(), key=lambda n: n.member_id)
        return Record(cluster_id, node.volume_id)
    return RecordBootstrapped()
