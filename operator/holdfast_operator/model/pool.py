"""HoldfastEdgePool: replicas of some prefixes, one on each node of a site."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast_operator.model.common import ClusterRef, Condition, Model, Resources, Storage, Toleration

Prefix = Annotated[str, Field(min_length=1, max_length=512)]


class PoolPlacement(Model):
    nodeSelector: dict[str, str] = Field(description="One replica runs on each node with these labels.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = None


class PoolSpec(Model):
    clusterRef: ClusterRef
    placement: PoolPlacement
    prefixes: Annotated[list[Prefix], Field(min_length=1, max_length=64)] = Field(
        description="What the replicas hold: all keys that begin so. None may begin with another."
    )
    anonymousReads: bool = Field(
        default=False,
        description="Serve the prefixes to everyone, even while the cluster has auth on: a replica knows no users.",
    )
    storage: Storage = Field(default_factory=Storage, description="Immutable: volumes are not resized yet.")
    resources: Resources | None = None


class PoolStatus(Model):
    observedGeneration: int | None = None
    replicas: int | None = None
    online: int | None = Field(default=None, description="Replicas that follow the cluster now.")
    synced: int | None = Field(default=None, description="Replicas that have everything of their prefixes.")
    summary: str | None = None
    conditions: list[Condition] | None = None
