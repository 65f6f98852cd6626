"""HoldfastConfig: configuration data that is applied like any other Kubernetes object."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast_operator.model.common import ClusterRef, Condition, Model

Value = Annotated[str, Field(max_length=65536)]


class ConfigSpec(Model):
    clusterRef: ClusterRef
    prefix: Annotated[str, Field(min_length=1, max_length=512, pattern=r".*/$")] = Field(
        description="Where the keys go; ends in a slash."
    )
    data: dict[str, Value] = Field(description="Name below the prefix, and value. All change at once.")


class PoolApplied(Model):
    name: str
    replicas: int
    applied: int = Field(description="Replicas that have this revision.")


class ConfigStatus(Model):
    observedGeneration: int | None = None
    revision: int | None = Field(default=None, description="The revision that has this data.")
    keys: int | None = None
    pools: list[PoolApplied] | None = None
    summary: str | None = None
    conditions: list[Condition] | None = None
