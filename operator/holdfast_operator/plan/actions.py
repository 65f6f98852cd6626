"""The steps an operator can take. Each is idempotent: taken twice, the second does nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now, and why; `progressing` tells whether that is on the way to what is wanted."""

    reason: str
    message: str
    progressing: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """Latch in the status which cluster this is, and on whose volume it is formed."""

    cluster_id: int
    seed: int


@dataclass(frozen=True, slots=True)
class Form:
    ordinal: int
    cluster_id: int
    volume_id: int


@dataclass(frozen=True, slots=True)
class RecordBootstrapped:
    """Latch that the cluster has been formed: it never is again."""


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
    """Hand over before the leader is touched. After `give_up` it is touched all the same."""

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
    """Of an ordinal whose member is removed and whose pod is gone."""

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
