"""HoldfastConfig: configuration data that is applied like any other Kubernetes object."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from holdfast_operator.model.common import ClusterRef, Condition, Model

Value = Annotated[str, Field(max_length=65536)]


class ConfigSpec(Model):
    clusterRef: ClusterRef = Field(description="The cluster that gets the data. Immutable.")
    prefix: Annotated[str, Field(min_length=1, max_length=512, pattern=r".*/$")] = Field(
        description="Where the keys go; ends in a slash."
    )
    data: dict[str, Value] = Field(description="Name below the prefix, and value. All change at once.")


class PoolApplied(Model):
    name: str = Field(description="Name of the HoldfastEdgePool.")
    replicas: int = Field(description="How many replicas it has.")
    applied: int = Field(description="Replicas that have this revision.")
    inSync: int | None = Field(default=None, description="Nodes whose programs report that they use this data.")
    failed: int | None = Field(default=None, description="Nodes whose programs report that they cannot use it.")
    drifted: int | None = Field(default=None, description="Nodes whose programs report that they use something else.")


class ConfigStatus(Model):
    observedGeneration: int | None = Field(
        default=None, description="metadata.generation of the spec that the operator acted on last."
    )
    revision: int | None = Field(default=None, description="The revision of the store that has this data.")
    keys: int | None = Field(default=None, description="How many keys the object owns.")
    pools: list[PoolApplied] | None = Field(default=None, description="How far the data has come at the edge.")
    summary: str | None = Field(default=None, description="Replicas with the data, and all, for kubectl get.")
    conditions: list[Condition] | None = Field(
        default=None, description="Ready sums up the others; its reason and message say what is wrong."
    )
