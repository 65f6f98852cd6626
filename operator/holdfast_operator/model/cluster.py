"""HoldfastCluster: the voters of one cluster."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from holdfast_operator.model.common import Condition, Model, Placement, Resources, Storage


class Voters(Model):
    replicas: Literal[1, 3, 5, 7] = Field(
        default=3, description="How many members vote. Three survive the loss of one."
    )
    storage: Storage = Field(default_factory=Storage, description="Immutable: volumes are not resized yet.")
    resources: Resources | None = None
    placement: Placement = Field(default_factory=Placement)


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
