"""An action of the operator, in words."""

from __future__ import annotations

from holdfast_operator.members import hex_id
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
from holdfast_operator.resources.common import voter_name


def sentence(action: Action, cluster: str) -> str:
    """What the operator would do, and why."""
    match action:
        case Wait(reason, message):
            return f"do nothing now ({reason}): {message}"
        case MarkVolumes(marks):
            return f"write on the claims which member they hold: {', '.join(mark.name for mark in marks)}"
        case Record(cluster_id, seed):
            return f"record that cluster {hex_id(cluster_id)} is formed on the volume {hex_id(seed)}"
        case Form(ordinal, cluster_id):
            return f"form cluster {hex_id(cluster_id)} on {voter_name(cluster, ordinal)}"
        case RecordBootstrapped():
            return "record that the cluster is formed"
        case Forget(cluster_id):
            return f"remove cluster {hex_id(cluster_id)} from the status: its volumes were given up"
        case Open(ordinal, cluster_id):
            return f"open {voter_name(cluster, ordinal)} for clients of cluster {hex_id(cluster_id)}"
        case AddLearner(ordinal, member_id):
            return f"add {voter_name(cluster, ordinal)} as the learner {hex_id(member_id)}"
        case Promote(member_id, name):
            return f"let {name} ({hex_id(member_id)}) vote: it has caught up"
        case Remove(member_id, name, _, why):
            return f"remove the member {name} ({hex_id(member_id)}): {why}"
        case TransferLeader(ordinal, to, why):
            return f"let {voter_name(cluster, ordinal)} hand over leadership to {hex_id(to)}: {why}"
        case EvictPod(ordinal, _, why):
            return f"evict the pod {voter_name(cluster, ordinal)}: {why}"
        case DeletePod(ordinal, _, why):
            return f"delete the pod {voter_name(cluster, ordinal)}: {why}"
        case DeleteVolume(name, _, why):
            return f"delete the claim {name}: {why}"
