"""HoldfastEdgePool: replicas of some prefixes, one on each node of a site."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from holdfast_operator.model.common import ClusterRef, Condition, Model, PodFields, Resources, Storage, Toleration

Prefix = Annotated[str, Field(min_length=1, max_length=512)]


class PoolPlacement(Model):
    nodeSelector: dict[str, str] = Field(description="One replica runs on each node with these labels.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = Field(
        default=None, description="Taints that do not keep the replicas away."
    )


LOCAL = "/local/"


class OfflineRule(Model):
    prefix: Prefix = Field(description="Keys that begin so; it begins with one of the pool's prefixes.")
    policy: Literal["Serve", "ServeUntil", "RequireOnline"] = Field(
        description="Serve: always. ServeUntil: until the data may be older than `seconds`. RequireOnline: only while "
        "the replica reaches the cluster."
    )
    seconds: Annotated[int, Field(ge=1, le=31536000)] | None = Field(
        default=None, description="For ServeUntil: how old the data may be."
    )

    @model_validator(mode="after")
    def _seconds_belong_to_serve_until(self) -> Self:
        if (self.policy == "ServeUntil") != (self.seconds is not None):
            raise ValueError("seconds are given for the policy ServeUntil, and for no other")
        return self


class SiteKeys(Model):
    name: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")] = Field(
        description="Name of the site: its keys are those below /local/NAME/."
    )
    writer: Annotated[str, Field(min_length=1, max_length=253)] = Field(
        description="Name of the node whose replica writes these keys. If that node has failed for good, name another "
        "one: it goes on from its copy."
    )


class PoolSpec(PodFields):
    clusterRef: ClusterRef = Field(description="The cluster that the replicas follow. Immutable.")
    placement: PoolPlacement = Field(description="On which nodes replicas run.")
    prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=64)] = Field(
        description="What the replicas hold: all keys that begin so. None may begin with another. A change replaces "
        "the pods one after another; a replica keeps what it has, and fetches only what is new."
    )
    anonymousReads: bool = Field(
        default=False,
        description="Serve the prefixes to everyone, even while the cluster has auth on. Otherwise each caller may "
        "read what users and roles let it read, if the replicas' user has the role holdfast-replica; else nobody may.",
    )
    relaysPerSite: Annotated[int, Field(ge=0, le=8)] = Field(
        default=0,
        description="So many replicas of the pool are relays: they follow the cluster, and all others follow them, so "
        "that the cluster's work does not grow with the site. While no relay can be followed, the others follow the "
        "cluster. 0: all follow the cluster. Where auth is on in the cluster, relays need the role holdfast-replica, "
        "or anonymousReads.",
    )
    stalenessTargetSeconds: Annotated[int, Field(ge=1, le=86400)] | None = Field(
        default=None,
        description="How old the data of a replica may be. The condition Fresh says whether that holds for all "
        "replicas; there is no such condition without a target.",
    )
    offline: Annotated[list[OfflineRule], Field(max_length=64)] | None = Field(
        default=None,
        description="What replicas serve while they are cut off from the cluster. The longest prefix of a key decides; "
        "other keys are served always.",
    )
    site: SiteKeys | None = Field(
        default=None,
        description="The replicas have keys of their own, below /local/NAME/, which are written at the site only, also "
        "while it is cut off. They are reported to the cluster, below /reported/.",
    )
    storage: Storage = Field(
        default_factory=Storage, description="The volume of each replica. Immutable: volumes are not resized yet."
    )
    resources: Resources | None = Field(
        default=None,
        description="Requests and limits of each replica, in the place of the default ones; {} means none at all.",
    )

    @model_validator(mode="after")
    def _rules_are_about_what_replicas_hold(self) -> Self:
        for rule in self.offline or ():
            if not rule.prefix.startswith(tuple(self.prefixes)):
                raise ValueError(f"offline: {rule.prefix} begins with none of the prefixes")
        return self

    @model_validator(mode="after")
    def _keys_of_a_site_are_not_followed(self) -> Self:
        for prefix in self.prefixes if self.site is not None else ():
            if prefix.startswith(LOCAL) or LOCAL.startswith(prefix):
                raise ValueError(f"prefixes: {prefix} has keys below {LOCAL}, which with a site are keys of the site")
        return self

    @field_validator("podOverlay")
    @classmethod
    def _replicas_stay_on_their_nodes(cls, overlay: dict[str, Any] | None) -> dict[str, Any] | None:
        if overlay is not None and "affinity" in overlay:
            raise ValueError("affinity cannot be set here: each replica is bound to its node; use placement")
        return overlay


class PoolStatus(Model):
    observedGeneration: int | None = Field(
        default=None, description="metadata.generation of the spec that the operator acted on last."
    )
    replicas: int | None = Field(default=None, description="How many nodes need a replica.")
    online: int | None = Field(
        default=None, description="Replicas that follow the cluster now. Absent if no member answers the operator."
    )
    offline: int | None = Field(
        default=None, description="Replicas that are wanted, and do not follow the cluster now."
    )
    synced: int | None = Field(
        default=None, description="Replicas that follow the cluster and have everything of their prefixes."
    )
    worstBoundSeconds: int | None = Field(
        default=None,
        description="The data of no replica that follows the cluster and knows its staleness is older than this. The "
        "highest of the last two minutes, in steps of 1, 2, 5, 10, 20, 50 and so on.",
    )
    summary: str | None = Field(default=None, description="Ready and wanted replicas, for kubectl get.")
    conditions: list[Condition] | None = Field(
        default=None,
        description="Ready sums up the rollout and Available; its reason and message say what is wrong. Fresh, "
        "Relays and SiteWriter are there if the spec asks for them.",
    )
