"""Pieces that several kinds share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from holdfast_operator.model import overlay

GROUP = "holdfast.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]


class Model(BaseModel):
    """Unknown fields are errors. `parse` reports and ignores them in objects that the API server has accepted."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ClusterRef(Model):
    name: str = Field(min_length=1, description="A HoldfastCluster in the same namespace.")


class Storage(Model):
    size: Quantity = Field(default="1Gi", description="How large each volume is.")
    storageClassName: str | None = Field(default=None, description="Which class; the cluster's default if absent.")


class Resources(Model):
    requests: dict[str, Quantity] | None = Field(default=None, description="What is reserved for each pod on its node.")
    limits: dict[str, Quantity] | None = Field(default=None, description="What each pod may use at most.")


class Toleration(Model):
    key: str | None = Field(default=None, description="Key of the taint; every taint if absent (operator Exists).")
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="Exists: any value of the taint. Equal: only `value`. Equal if absent."
    )
    value: str | None = Field(default=None, description="Value of the taint, for the operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; every effect if absent."
    )
    tolerationSeconds: int | None = Field(
        default=None, description="How long a taint with the effect NoExecute is tolerated; for ever if absent."
    )


class Placement(Model):
    nodeSelector: dict[str, str] | None = Field(default=None, description="Labels a node must have.")
    allowSharedNodes: bool = Field(
        default=False,
        description="Whether one node may run so many voters that its loss costs the majority, as on a cluster of one "
        "or two nodes. If false, a voter that finds no other node is not scheduled.",
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = Field(
        default=None, description="Taints that do not keep the pods away."
    )
    topologyKey: str | None = Field(
        default=None, description="Pods are spread over the values of this node label; topology.kubernetes.io/zone."
    )


class SecretReference(Model):
    name: str = Field(min_length=1, max_length=253, description="Name of a Secret in the same namespace.")


class PodFields(Model):
    """What users add to the pods of voters and of edge replicas. A change replaces the pods, one after another."""

    imagePullSecrets: Annotated[list[SecretReference], Field(max_length=16)] | None = Field(
        default=None, description="Secrets with the credentials of the image's registry."
    )
    priorityClassName: str | None = Field(default=None, description="PriorityClass of the pods.")
    podLabels: Annotated[dict[str, str], AfterValidator(overlay.checked_labels)] | None = Field(
        default=None, description="Additional labels of the pods. The operator's own labels cannot be set."
    )
    podAnnotations: Annotated[dict[str, str], AfterValidator(overlay.checked_annotations)] | None = Field(
        default=None, description="Additional annotations of the pods, outside the domain holdfast.dev."
    )
    podOverlay: Annotated[dict[str, Any], AfterValidator(overlay.checked)] | None = Field(
        default=None,
        description="A partial pod spec that is merged into that of the pods: objects field by field, containers, "
        "volumes and variables by name, mounts by path; null removes a field. The container of the operator is "
        "`holdfast`; its image, command, arguments, ports, own mounts and readiness probe cannot be changed, and no "
        "process may run as root.",
    )


class Condition(Model):
    type: str = Field(description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(
        description="Whether it holds. Unknown: it could not be observed."
    )
    reason: str = Field(description="Why, as one word for programs.")
    message: str = Field(description="Why, for people.")
    lastTransitionTime: str = Field(description="When `status` last changed.")
    observedGeneration: int | None = Field(
        default=None, description="metadata.generation of the object that the condition was computed from."
    )


def dump(model: BaseModel) -> dict[str, Any]:
    """The form for the API server: None is left out, not null."""
    return model.model_dump(exclude_none=True, by_alias=True)
