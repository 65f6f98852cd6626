"""Runs one pass of the operator's own reconcilers over the objects of a file, and prints what they would do.

Nothing is changed: objects are written with dryRun, and members are only asked. A pass takes one step, so this shows
the next step and why, not all steps until the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import yaml

from holdfast_operator.act import Actor
from holdfast_operator.kube import ApiError, Kube, Object
from holdfast_operator.members import Members
from holdfast_operator.model.common import API_VERSION
from holdfast_operator.observe import Observation
from holdfast_operator.plan.actions import Action
from holdfast_operator.preview.dry_run import DryRun
from holdfast_operator.preview.forward import ForwardedMembers
from holdfast_operator.reconcile_cluster import ClusterReconciler
from holdfast_operator.reconcile_pool import PoolReconciler
from holdfast_operator.words import sentence

_PLANNED = ("HoldfastCluster", "HoldfastEdgePool")
_NOT_PLANNED = {
    "HoldfastConfig": "HoldfastConfigs are not planned: the operator writes what they say in one transaction",
    "HoldfastCells": "HoldfastCells are not planned: what is next depends on what the cells answer to the operator",
}


class BadFile(Exception):
    """The file has no objects that can be planned. The message says what is wrong, and where."""


class _Recorder(Actor):
    """Records the action in the place of executing it."""

    def __init__(self, planned: list[Action]) -> None:
        self._planned = planned

    async def carry_out(self, action: Action) -> None:
        self._planned.append(action)


def read(path: Path, namespace: str) -> list[Object]:
    """Our objects in a YAML file; `namespace` is for those that name none. Raises BadFile."""
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadFile(f"{path} cannot be read: {error}") from None
    found = []
    for number, obj in enumerate(documents, 1):
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict) or not obj["metadata"].get("name"):
            raise BadFile(f"{path}: the object {number} is no Kubernetes object with a name")
        if obj.get("apiVersion") == API_VERSION and obj.get("kind") in (*_PLANNED, *_NOT_PLANNED):
            found.append({**obj, "metadata": {"namespace": namespace, **obj["metadata"]}})
    if not any(obj["kind"] in _PLANNED for obj in found):
        raise BadFile(f"{path} has no HoldfastCluster and no HoldfastEdgePool")
    return found


async def preview(kube: DryRun, objects: list[Object], repository: str, show: Callable[[str], None]) -> None:
    """Raises ApiError."""
    kube.hold(objects)
    clusters = {(o["metadata"]["namespace"], _cluster_of(o)) for o in objects if o["kind"] in _PLANNED}
    version = await kube.version()
    for namespace, name in sorted(clusters):
        await _Preview(kube, namespace, name, repository, version, show).run()
    for kind, why in _NOT_PLANNED.items():
        if any(o["kind"] == kind for o in objects):
            show(why)
    show("nothing was changed")


def _cluster_of(obj: Object) -> str:
    if obj["kind"] == "HoldfastCluster":
        return str(obj["metadata"]["name"])
    return str((obj.get("spec") or {}).get("clusterRef", {}).get("name", ""))


class _Preview:
    def __init__(
        self,
        kube: DryRun,
        namespace: str,
        name: str,
        repository: str,
        version: tuple[int, int],
        show: Callable[[str], None],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._version = version
        self._show = show
        self._planned: list[Action] = []
        self._cluster = ClusterReconciler(kube, namespace, name, repository, self._members, self._recorder)

    def _members(self, kube: Kube, cluster: str, namespace: str, tls: bool) -> Members:
        return ForwardedMembers(kube, cluster, namespace, tls, functools.partial(self._kube.open_pod, namespace))

    def _recorder(self, kube: Kube, members: Members, cluster: Object, seen: Observation, tls: bool) -> Actor:
        return _Recorder(self._planned)

    async def run(self) -> None:
        listed = await self._kube.list("HoldfastEdgePool", self._namespace)
        pools = [p for p in listed if p["spec"]["clusterRef"]["name"] == self._name]
        try:
            if await self._cluster.run(pools) is None:
                self._show(f"HoldfastCluster {self._namespace}/{self._name}: there is none, in the file or the cluster")
            else:
                self._tell("HoldfastCluster", self._name)
                for action in self._planned:
                    self._show(f"  would {sentence(action, self._name)}")
            pass_of_pools = PoolReconciler(self._kube, self._namespace, self._name, self._version)
            for pool in pools:
                try:
                    await pass_of_pools.run(pool, self._cluster.for_pools, self._cluster.reports)
                except ApiError as error:
                    self._show(f"  refused: {error}")
                self._tell("HoldfastEdgePool", pool["metadata"]["name"])
        finally:
            await self._cluster.close()

    def _tell(self, kind: str, name: str) -> None:
        self._show(f"{kind} {self._namespace}/{name}")
        for change in self._kube.changes:
            self._show(f"  would {change}")
        self._kube.changes.clear()
        for condition in self._kube.conditions.get((kind, name), []):
            if condition["type"] == "Ready":
                said = f"Ready {condition['status']}, {condition['reason']}: {condition['message']}"
                self._show(f"  would say {said}")
