"""HoldfastCluster: the voters of one cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from holdfast_operator.model.common import Condition, Model, Placement, Resources, Storage


class Voters(Model):
    replicas: Literal[1, 3, 5, 7] = Field(
        default=3, description="How many members vote. Three survive the loss of one."
    )
    storage: Storage = Field(default_factory=Storage, description="Immutable: volumes are not resized yet.")
    resources: Resources | None = None
    placement: Placement = Field(default_factory=Placement)


class Tls(Model):
    mode: Literal["SelfManaged", "Disabled"] = Field(
        default="SelfManaged", description="SelfManaged: the operator makes a CA and certificates. Immutable."
    )


class Rollout(Model):
    leaderTransferTimeoutSeconds: Annotated[int, Field(ge=1, le=300)] = Field(
        default=10, description="How long a leader may take to hand over before its pod is replaced anyway."
    )


class ClusterSpec(Model):
    version: str = Field(default="", description="Which holdfast runs; the image's tag unless image is given.")
    image: str | None = Field(default=None, description="The image, in the place of the operator's default one.")
    voters: Voters = Field(default_factory=Voters)
    tls: Tls = Field(default_factory=Tls)
    rollout: Rollout = Field(default_factory=Rollout)
    paused: bool = Field(default=False, description="The operator changes nothing while this is set.")


class MemberStatus(Model):
    id: str = Field(description="Hexadecimal.")
    name: str
    role: Literal["voter", "learner"]
    ready: bool


class ClusterStatus(Model):
    observedGeneration: int | None = None
    clusterID: str | None = Field(default=None, description="Hexadecimal; once set it never changes.")
    seed: str | None = Field(default=None, description="The volume that the cluster was formed on.")
    bootstrapped: bool | None = None
    configIndex: int | None = Field(default=None, description="Where the membership in force was decided.")
    leader: str | None = None
    currentVersion: str | None = None
    voters: int | None = None
    readyVoters: int | None = None
    votersSummary: str | None = None
    edgeSummary: str | None = None
    members: list[MemberStatus] | None = None
    conditions: list[Condition] | None = None
