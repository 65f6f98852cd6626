"""What the planner decides on: the wanted cluster, and the observed pods, volumes and members as typed values.

`None` means that a fact could not be observed. It never stands for "no".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

ADOPT, WIPE = "holdfast.dev/adopt", "holdfast.dev/wipe"  # annotations: the id of a cluster to take over, or to delete


class NodeState(Enum):
    EMPTY = 0
    FORMED = 1
    MEMBER = 2
    REMOVED = 3


class Run(Enum):
    """What the container of a pod does, as its kubelet reports it."""

    NEVER = 0  # it has never run: not scheduled, no image, a volume or a Secret is missing
    FAILING = 1  # it ran, and cannot be started now
    RUNNING = 2
    UNKNOWN = 3  # the pod's node does not report
    STARTING = 4  # it has not run yet, and nothing is wrong so far


@dataclass(frozen=True, slots=True)
class Node:
    """What a pod's process reports about itself."""

    volume_id: int
    cluster_id: int
    member_id: int
    state: NodeState
    ready: bool
    applied_index: int = 0


@dataclass(frozen=True, slots=True)
class Pod:
    uid: str
    ready: bool  # as its kubelet reports
    terminating: bool
    template: str  # hash of the template that it was made from
    node: Node | None  # None: it does not answer
    run: Run = Run.RUNNING
    trouble: str = ""  # why it does not run or is not ready, in Kubernetes' words

    @property
    def cannot_run(self) -> bool:
        """Whether no process of this pod can be voting. One that answers runs, whatever the kubelet says; one that is
        starting may run in a moment."""
        return self.node is None and self.run in (Run.NEVER, Run.FAILING)


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    ordinal: int  # -1: it belongs to none of our pods
    voter: bool
    caught_up: bool

    @property
    def shown(self) -> str:
        return f"voter {self.ordinal} ({self.id:016x})" if self.ordinal >= 0 else f"member {self.id:016x}"


@dataclass(frozen=True, slots=True)
class Membership:
    """The membership in force, from a linearizable read."""

    config_index: int
    leader: int
    members: tuple[Member, ...]

    @property
    def voters(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.voter)

    @property
    def ids(self) -> frozenset[int]:
        return frozenset(m.id for m in self.members)

    @property
    def by_ordinal(self) -> dict[int, Member]:
        return {m.ordinal: m for m in self.members if m.ordinal >= 0}


@dataclass(frozen=True, slots=True)
class Volume:
    """A claim. `cluster_id` and `member_id` are what its process reported when it last answered; both 0: it never did.
    An empty volume has cluster id 0, and the id that its member would have."""

    name: str
    uid: str
    cluster_id: int = 0
    member_id: int = 0
    terminating: bool = False
    lost: bool = False  # it can only be used on a node that does not exist any more
    younger: bool = False  # than the HoldfastCluster: it holds nothing of an earlier one of this name


@dataclass(frozen=True, slots=True)
class Desired:
    """The wanted cluster. `adopt` and `wipe` are cluster ids that the user gave in annotations of the object: take over
    the volumes of this cluster, or delete them."""

    replicas: int
    template: str
    adopt: int = 0
    wipe: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    pods: Mapping[int, Pod]
    volumes: Mapping[int, Volume]
    membership: Membership | None  # None: no member answers a linearizable read
    cluster_id: int = 0  # as recorded in the status
    seed: int = 0
    bootstrapped: bool = False
    fresh_id: int = 0  # for a new cluster, if one is to be formed
    transfer_expired: bool = False  # the leader was asked to transfer leadership, and has not done so in time
    scheduled: int = 0  # replicas of the StatefulSet
    template: str | None = None  # hash of the template that it makes pods from; None: there is none

    def remade(self, desired: Desired) -> bool:
        """Whether a pod that goes comes back as it is wanted. The API server may have refused the wanted template."""
        return self.template in (None, desired.template)

    @property
    def nodes(self) -> dict[int, Node]:
        """What the pods report that answer and stay."""
        return {o: p.node for o, p in sorted(self.pods.items()) if p.node is not None and not p.terminating}
