"""Where the cells of a HoldfastCells are: the endpoints of each, and the certificates that it is reached with.

A HoldfastCluster is reached by the Service of its voters, with the certificate that its applications have.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_operator.kube import Kube, Object
from holdfast_operator.model.cells import Where
from holdfast_operator.resources.cells import Place
from holdfast_operator.resources.cluster import client_endpoint
from holdfast_operator.resources.common import client_secret


async def places_of(kube: Kube, namespace: str, cells: Mapping[str, Where]) -> dict[str, Place]:
    """The place of each cell, by name. Raises ApiError."""
    clusters: dict[str, Object] = {}
    if any(where.cluster is not None for where in cells.values()):
        clusters = {c["metadata"]["name"]: c for c in await kube.list("HoldfastCluster", namespace)}
    return {cell: await _place(kube, namespace, where, clusters) for cell, where in cells.items()}


async def _place(kube: Kube, namespace: str, where: Where, clusters: Mapping[str, Object]) -> Place:
    if where.cluster is None:
        endpoints = ",".join(where.endpoints or [])
        return await _with_secret(kube, namespace, endpoints, where.tls.secretName if where.tls else "")
    endpoints = client_endpoint(where.cluster, namespace)
    cluster = clusters.get(where.cluster)
    if cluster is None:
        trouble = f"there is no HoldfastCluster {where.cluster} in this namespace"
        return Place(endpoints, client_secret(where.cluster), trouble=trouble)
    encrypted = cluster["spec"].get("tls", {}).get("mode") != "Disabled"
    return await _with_secret(kube, namespace, endpoints, client_secret(where.cluster) if encrypted else "")


async def _with_secret(kube: Kube, namespace: str, endpoints: str, name: str) -> Place:
    if not name:
        return Place(endpoints)
    secret = await kube.get("Secret", namespace, name)
    if secret is None:
        return Place(endpoints, name, trouble=f"there is no Secret {name} in this namespace")
    data = secret.get("data") or {}
    files = tuple((file, data[file]) for file in ("ca.crt", "tls.crt", "tls.key") if file in data)
    names = {file for file, _ in files}
    if "ca.crt" not in names:
        return Place(endpoints, name, trouble=f"the Secret {name} has no ca.crt")
    if ("tls.crt" in names) != ("tls.key" in names):
        return Place(endpoints, name, trouble=f"the Secret {name} has only one of tls.crt and tls.key")
    return Place(endpoints, name, files)
