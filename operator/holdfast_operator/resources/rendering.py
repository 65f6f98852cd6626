"""What pods are made from: an image, and a version of the code that renders their template.

Both belong to the version of the members, not to that of the operator. A changed template replaces every pod, so a new
operator with other defaults or another registry keeps to what each cluster was rendered with. A cluster gets the newest
rendering when its user asks for another version or image, because all pods are replaced then anyway.

To change what pods look like, add a version here. Never change what an existing version renders:
`tests/resources/rendering*.json` hold that.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_operator.model.cluster import ClusterSpec, ClusterStatus, RolloutStatus
from holdfast_operator.model.common import Resources

OLDEST, NEWEST = 1, 2


class UnknownRendering(Exception):
    """A newer operator rendered this cluster. This one cannot make the same pods, and must not make others."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What one version of the rendering does where the spec leaves it open."""

    voter_resources: Resources | None
    replica_resources: Resources | None
    host: str  # where processes listen
    dual_stack: bool  # Services have an address of each family that the cluster has
    spread_over_nodes: int  # voters share no node as long as there are fewer nodes than this; 0: no such rule
    quota_follows_volume: bool
    operator_identity: bool  # members know the operator by its certificate, so that enabling auth cannot lock it out
    literal_dollars: bool  # a $ in a prefix is taken literally, and not as the beginning of a variable


_DEFAULTS = {
    1: Defaults(
        voter_resources=None,
        replica_resources=None,
        host="0.0.0.0",
        dual_stack=False,
        spread_over_nodes=0,
        quota_follows_volume=False,
        operator_identity=False,
        literal_dollars=False,
    ),
    2: Defaults(
        # Measured: a voter needs 80 MB, a replica 82 MB. The limits leave room for data and for snapshots.
        voter_resources=Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"}),
        replica_resources=Resources(requests={"cpu": "25m", "memory": "96Mi"}, limits={"memory": "384Mi"}),
        host="[::]",  # IPv4, too
        dual_stack=True,
        spread_over_nodes=3,
        quota_follows_volume=True,
        operator_identity=True,
        literal_dollars=True,
    ),
}


def defaults(rendering: int) -> Defaults:
    found = _DEFAULTS.get(rendering)
    if found is None:
        raise UnknownRendering(
            f"the pods were rendered by a newer operator (rendering {rendering}; this one knows {OLDEST} to {NEWEST}): "
            "install that operator again"
        )
    return found


def service_families(rendering: int) -> dict[str, str]:
    """The part of a Service's spec about IP families. Pods of an older rendering listen on IPv4 alone."""
    return {"ipFamilyPolicy": "PreferDualStack"} if defaults(rendering).dual_stack else {}


def image_of(spec: ClusterSpec, repository: str) -> str:
    return spec.image or f"{repository}:{spec.version}"


def latched(spec: ClusterSpec, status: ClusterStatus, live_image: str | None, repository: str) -> RolloutStatus:
    """What the pods are to be made from. `live_image`: that of the StatefulSet's template, None if there is none.

    Pure: the caller writes the result to the status before it makes or changes a pod. Raises UnknownRendering."""
    before = status.rollout
    if before is not None and (before.version, before.specImage) == (spec.version, spec.image):
        defaults(before.rendering)  # raises
        return before
    if before is None and status.bootstrapped and (live_image is None or _is_for(live_image, spec)):
        # An operator without renderings made this cluster, and the user asks for the same version since.
        return _rollout(spec, live_image or image_of(spec, repository), OLDEST)
    return _rollout(spec, image_of(spec, repository), NEWEST)


def _rollout(spec: ClusterSpec, image: str, rendering: int) -> RolloutStatus:
    return RolloutStatus(version=spec.version, specImage=spec.image, image=image, rendering=rendering)


def _is_for(image: str, spec: ClusterSpec) -> bool:
    """Whether the image is what `spec` asks for. The registry of an image that is not given does not matter."""
    if spec.image:
        return image == spec.image
    name, colon, tag = image.rpartition(":")
    return bool(colon) and bool(name) and tag == spec.version
