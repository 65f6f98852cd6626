"""The actions of the operator. Each is idempotent: executing it again has no effect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now, and why. `progressing`: the cluster is on its way to the wanted state by itself. `stalled`: it
    stays as it is until the user does something, which the message names."""

    reason: str
    message: str
    progressing: bool = True
    stalled: bool = False


def stalled(reason: str, message: str) -> Wait:
    return Wait(reason, message, progressing=False, stalled=True)


@dataclass(frozen=True, slots=True)
class Mark:
    """Write on a volume's claim which cluster and member it holds."""

    name: str
    uid: str
    cluster_id: int
    member_id: int


@dataclass(frozen=True, slots=True)
class MarkVolumes:
    """All marks that are due. They disturb nothing, so they are one action."""

    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Record in the status, once, the cluster id and the volume on which the cluster is formed."""

    cluster_id: int
    seed: int


@dataclass(frozen=True, slots=True)
class Form:
    ordinal: int
    cluster_id: int
    volume_id: int


@dataclass(frozen=True, slots=True)
class RecordBootstrapped:
    """Record in the status that the cluster is formed, so that it is never formed again."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the cluster id from the status: the user has had all volumes of that cluster deleted."""

    cluster_id: int


@dataclass(frozen=True, slots=True)
class Open:
    ordinal: int
    cluster_id: int


@dataclass(frozen=True, slots=True)
class AddLearner:
    ordinal: int
    member_id: int
    config_index: int


@dataclass(frozen=True, slots=True)
class Promote:
    member_id: int
    name: str
    config_index: int


@dataclass(frozen=True, slots=True)
class Remove:
    member_id: int
    name: str
    config_index: int
    why: str


@dataclass(frozen=True, slots=True)
class TransferLeader:
    """Transfer leadership before the leader is replaced or removed. If that does not succeed in time
    (`Observed.transfer_expired`), the planner goes on without it."""

    leader_ordinal: int
    to: int
    why: str


@dataclass(frozen=True, slots=True)
class EvictPod:
    """End a pod that runs. A disruption budget may forbid it for now."""

    ordinal: int
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod that does not serve, whatever budgets say. `unchanged`: only if nothing about it has changed since,
    because the decision depends on it that it does not run."""

    ordinal: int
    uid: str
    why: str
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class DeleteVolume:
    """Delete a volume of a member that was removed from this cluster, or of a cluster that the user gave up."""

    name: str
    uid: str
    why: str


Action = (
    Wait
    | MarkVolumes
    | Record
    | Form
    | RecordBootstrapped
    | Forget
    | Open
    | AddLearner
    | Promote
    | Remove
    | TransferLeader
    | EvictPod
    | DeletePod
    | DeleteVolume
)
