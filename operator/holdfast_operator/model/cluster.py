"""HoldfastCluster: the voters of one cluster."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from holdfast_operator.model.common import Condition, Model, Placement, PodFields, Resources, Storage


class Voters(PodFields):
    replicas: Literal[1, 3, 5, 7] = Field(
        default=3, description="How many members vote. Three survive the loss of one."
    )
    storage: Storage = Field(
        default_factory=Storage, description="The volume of each voter. Immutable: volumes are not resized yet."
    )
    quotaBytes: Annotated[int, Field(ge=1 << 20)] | None = Field(
        default=None,
        description="Limit of the data in bytes; at the limit writes are refused. 75 % of storage.size if absent.",
    )
    resources: Resources | None = Field(
        default=None,
        description="Requests and limits of each voter, in the place of the default ones; {} means none at all.",
    )
    placement: Placement = Field(default_factory=Placement, description="On which nodes the voters run.")


_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def _name_or_address(text: str) -> str:
    """What the pattern lets through and is neither: a name that ends in a number is meant as an address."""
    if ":" in text or text.rpartition(".")[2].isdigit():
        try:
            ip_address(text)
        except ValueError:
            raise ValueError(f"{text} is neither a DNS name nor an IP address") from None
    return text


ExtraName = Annotated[
    str,
    # A wildcard stands for one label, before two labels or more: TLS libraries accept no other.
    Field(max_length=253, pattern=rf"^((\*\.{_LABEL}\.)?{_LABEL}(\.{_LABEL})*|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"),
    AfterValidator(_name_or_address),
]


class Tls(Model):
    mode: Literal["SelfManaged", "Disabled"] = Field(
        default="SelfManaged", description="SelfManaged: the operator makes a CA and certificates. Immutable."
    )
    extraSANs: Annotated[list[ExtraName], Field(max_length=32)] | None = Field(
        default=None,
        description="More DNS names (in lower case) and IP addresses that voters and edge replicas are reached by, "
        "such as those of a load balancer. Their certificates are issued again when this changes; no pod restarts.",
    )


class Rollout(Model):
    leaderTransferTimeoutSeconds: Annotated[int, Field(ge=1, le=300)] = Field(
        default=10, description="How long a leader may take to hand over before its pod is replaced anyway."
    )


class ClusterSpec(Model):
    version: str = Field(
        default="", description="Which holdfast runs: the tag of the operator's default image, unless image is given."
    )
    image: str | None = Field(default=None, description="The image, in the place of the operator's default one.")
    voters: Voters = Field(default_factory=Voters, description="The members that vote, and their pods.")
    tls: Tls = Field(default_factory=Tls, description="Encryption between members, replicas and clients.")
    rollout: Rollout = Field(default_factory=Rollout, description="How pods are replaced.")
    paused: bool = Field(default=False, description="The operator changes nothing while this is set.")


class MemberStatus(Model):
    id: str = Field(description="Id of the member, hexadecimal.")
    name: str = Field(description="Name of its pod; empty if it is not one of this cluster's pods.")
    role: Literal["voter", "learner"] = Field(description="Whether it votes, or only receives the data as yet.")
    ready: bool = Field(description="Whether its pod is ready.")


class RolloutStatus(Model):
    """What the pods are made from. It changes only when spec.version or spec.image does, so that a new operator, with
    another registry or other defaults, replaces no pod."""

    version: str = Field(description="spec.version that this is for.")
    specImage: str | None = Field(default=None, description="spec.image that this is for.")
    image: str = Field(description="The image of the pods.")
    rendering: int = Field(description="Version of the code that makes the pod template.")


class ClusterStatus(Model):
    observedGeneration: int | None = Field(
        default=None, description="metadata.generation of the spec that the operator acted on last."
    )
    clusterID: str | None = Field(default=None, description="Id of the cluster, hexadecimal; it never changes.")
    seed: str | None = Field(default=None, description="Id of the volume that the cluster was formed on.")
    bootstrapped: bool | None = Field(default=None, description="Whether the cluster was formed.")
    configIndex: int | None = Field(default=None, description="Log index of the membership in force.")
    leader: str | None = Field(default=None, description="Pod of the leader.")
    currentVersion: str | None = Field(default=None, description="The version that all pods run.")
    rollout: RolloutStatus | None = Field(default=None, description="What the pods are made from.")
    voters: int | None = Field(default=None, description="How many members vote.")
    readyVoters: int | None = Field(default=None, description="How many of them are ready.")
    votersSummary: str | None = Field(default=None, description="Ready and wanted voters, for kubectl get.")
    edgeSummary: str | None = Field(default=None, description="Connected and wanted replicas, for kubectl get.")
    members: list[MemberStatus] | None = Field(default=None, description="The members of the cluster.")
    conditions: list[Condition] | None = Field(
        default=None, description="Ready sums up the others; its reason and message say what is wrong."
    )
