"""The actions of the operator. Each is idempotent: executing it again has no effect."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now, and why. `progressing`: whether the cluster is on its way to the desired state."""

    reason: str
    message: str
    progressing: bool = True


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
class DeletePod:
    ordinal: int
    uid: str
    why: str


@dataclass(frozen=True, slots=True)
class DeleteVolume:
    """Delete the volume of an ordinal whose member is removed and whose pod is gone."""

    name: str
    uid: str


Action = (
    Wait
    | Record
    | Form
    | RecordBootstrapped
    | Open
    | AddLearner
    | Promote
    | Remove
    | TransferLeader
    | DeletePod
    | DeleteVolume
)
