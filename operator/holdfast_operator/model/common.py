"""Pieces that several kinds share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

GROUP = "holdfast.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]


class Model(BaseModel):
    """Strict: an unknown field is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ClusterRef(Model):
    name: str = Field(min_length=1, description="A HoldfastCluster in the same namespace.")


class Storage(Model):
    size: Quantity = Field(default="1Gi", description="How large each volume is.")
    storageClassName: str | None = Field(default=None, description="Which class; the cluster's default if absent.")


class Resources(Model):
    requests: dict[str, Quantity] | None = Field(default=None, description="What a pod is given.")
    limits: dict[str, Quantity] | None = Field(default=None, description="What a pod may use at most.")


class Toleration(Model):
    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = None


class Placement(Model):
    nodeSelector: dict[str, str] | None = Field(default=None, description="Labels a node must have.")
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = Field(
        default=None, description="Taints that do not keep the pods away."
    )
    topologyKey: str | None = Field(
        default=None, description="Pods are spread over the values of this node label; topology.kubernetes.io/zone."
    )


class Condition(Model):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    lastTransitionTime: str
    observedGeneration: int | None = None


def dump(model: BaseModel) -> dict[str, Any]:
    """The form for the API server: None is left out, not null."""
    return model.model_dump(exclude_none=True, by_alias=True)
