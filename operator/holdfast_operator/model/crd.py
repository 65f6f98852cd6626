"""CRDs made from the models: structural schemas with CEL rules; unknown fields are not preserved.

`python -m holdfast_operator.model.crd` prints them; `make generate` writes them to the files that are installed.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml
from pydantic import BaseModel

from holdfast_operator.model.cells import CellsSpec, CellsStatus
from holdfast_operator.model.cluster import ClusterSpec, ClusterStatus
from holdfast_operator.model.common import GROUP, VERSION
from holdfast_operator.model.config import ConfigSpec, ConfigStatus
from holdfast_operator.model.pool import PoolSpec, PoolStatus

Schema = dict[str, Any]
_KEEP = ("type", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength")
_LIST_KEYS = {
    "conditions": ["type"],
    "members": ["id"],
    "pools": ["name"],
    "cells": ["name"],
    "queues": ["from", "to"],
    "replicate": ["prefix"],
    "replication": ["from", "to", "prefix"],
}


def structural(schema: Schema, defs: Schema, name: str = "") -> Schema:
    """Convert a JSON schema of pydantic to what Kubernetes accepts: no references, no unions with null."""
    if "$ref" in schema:
        schema = {**defs[schema["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in schema.items() if k != "$ref"}}
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        rest = {k: v for k, v in schema.items() if k != "anyOf" and not (k == "default" and v is None)}
        return structural({**only, **rest}, defs, name)
    out = {key: schema[key] for key in _KEEP if key in schema}
    if "const" in schema:
        out["enum"] = [schema["const"]]
    if schema.get("type") == "integer":
        out["format"] = "int64"
    if "properties" in schema:
        out["properties"] = {key: structural(value, defs, key) for key, value in schema["properties"].items()}
        required = schema.get("required", [])
        for key, value in schema["properties"].items():
            if "$ref" in value and key not in required:
                out["properties"][key]["default"] = {}  # so that the defaults within it apply
        if required:
            out["required"] = sorted(required)
    elif isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = structural(schema["additionalProperties"], defs)
        out["maxProperties"] = 100
    elif schema.get("additionalProperties") is True:  # a free-form object, which the model validates
        out["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in schema:
        out["items"] = structural(schema["items"], defs)
        for key in ("minItems", "maxItems"):
            if key in schema:
                out[key] = schema[key]
        if name in _LIST_KEYS:
            out["x-kubernetes-list-type"] = "map"
            out["x-kubernetes-list-map-keys"] = _LIST_KEYS[name]
    return out


def schema_of(model: type[BaseModel]) -> Schema:
    raw = model.model_json_schema()
    return structural(raw, raw.get("$defs", {}))


def _rule(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


_NAME = _rule(
    "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "the name must begin with a letter and have at most 40 characters of a-z, 0-9 and -",
)


def _fixed(field: str, message: str) -> Schema:
    return _rule(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})", message
    )


def _column(name: str, path: str, type_: str = "string", *, wide: bool = False) -> Schema:
    """`wide`: only in `kubectl get -o wide`."""
    column = {"name": name, "jsonPath": path, "type": type_}
    return {**column, "priority": 1} if wide else column


def _condition(type_: str, field: str = "status", name: str = "", *, wide: bool = False) -> Schema:
    return _column(name or type_, f'.status.conditions[?(@.type=="{type_}")].{field}', wide=wide)


# The condition that tools wait for comes first, and why it does not hold.
_READY = [_condition("Ready"), _condition("Ready", "reason", "Reason")]
_MESSAGE = _condition("Ready", "message", "Message", wide=True)
_AGE = _column("Age", ".metadata.creationTimestamp", "date")


def _crd(
    kind: str,
    plural: str,
    short: str,
    about: str,
    spec: type[BaseModel],
    status: type[BaseModel],
    columns: list[Schema],
    spec_rules: list[Schema],
) -> Schema:
    spec_schema = schema_of(spec)
    if spec_rules:
        spec_schema["x-kubernetes-validations"] = spec_rules
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["holdfast"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": about,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": {**spec_schema, "description": "What is wanted."},
                                "status": {**schema_of(status), "description": "What the operator observed."},
                            },
                            "x-kubernetes-validations": [_NAME],
                        }
                    },
                }
            ],
        },
    }


def crds() -> list[Schema]:
    """All of them, in a fixed order."""
    cluster = _crd(
        "HoldfastCluster",
        "holdfastclusters",
        "hfc",
        "The voters of one holdfast cluster.",
        ClusterSpec,
        ClusterStatus,
        [
            *_READY,
            _column("Version", ".status.currentVersion"),
            _column("Voters", ".status.votersSummary"),
            _column("Leader", ".status.leader"),
            _column("Edge", ".status.edgeSummary"),
            _condition("Available"),
            _condition("FaultTolerant", wide=True),
            _condition("Progressing", wide=True),
            _MESSAGE,
            _AGE,
        ],
        [
            _rule("(has(self.image) && self.image != '') || self.version != ''", "give version or image"),
            _rule("self.voters.storage == oldSelf.voters.storage", "voters.storage cannot be changed yet"),
            _rule("self.tls.mode == oldSelf.tls.mode", "tls.mode cannot be changed"),
        ],
    )
    pool = _crd(
        "HoldfastEdgePool",
        "holdfastedgepools",
        "hfep",
        "Replicas of some prefixes of a cluster: one on each node of a site.",
        PoolSpec,
        PoolStatus,
        [
            *_READY,
            _column("Cluster", ".spec.clusterRef.name"),
            _column("Replicas", ".status.summary"),
            _column("Synced", ".status.synced", "integer"),
            _column("Offline", ".status.offline", "integer"),
            _condition("Fresh", wide=True),
            _condition("Relays", wide=True),
            _condition("SiteWriter", wide=True),
            _MESSAGE,
            _AGE,
        ],
        [
            _rule("self.clusterRef == oldSelf.clusterRef", "clusterRef cannot be changed"),
            _rule("self.storage == oldSelf.storage", "storage cannot be changed yet"),
            _rule(
                "self.prefixes.all(a, self.prefixes.filter(b, b.startsWith(a)).size() == 1)",
                "no prefix may begin with another one, or be given twice",
            ),
            _rule(
                "!has(self.offline) || self.offline.all(o, self.prefixes.exists(p, o.prefix.startsWith(p)))",
                "each prefix of offline has to begin with one of the prefixes",
            ),
            _rule(
                "!has(self.offline) || self.offline.all(o, (o.policy == 'ServeUntil') == has(o.seconds))",
                "in offline, give seconds for the policy ServeUntil, and for no other",
            ),
        ],
    )
    config = _crd(
        "HoldfastConfig",
        "holdfastconfigs",
        "hfcfg",
        "Configuration data that the operator writes to a cluster.",
        ConfigSpec,
        ConfigStatus,
        [
            *_READY,
            _column("Cluster", ".spec.clusterRef.name"),
            _column("Prefix", ".spec.prefix"),
            _column("Revision", ".status.revision", "integer"),
            _column("Edge", ".status.summary"),
            _MESSAGE,
            _AGE,
        ],
        [
            _rule("self.clusterRef == oldSelf.clusterRef", "clusterRef cannot be changed"),
            _rule("self.prefix == oldSelf.prefix", "prefix cannot be changed; make another HoldfastConfig"),
        ],
    )
    return [cluster, pool, config, _cells()]


def _cells() -> Schema:
    return _crd(
        "HoldfastCells",
        "holdfastcells",
        "hfcells",
        "Clusters that agree with each other as cells, and the processes that work between them.",
        CellsSpec,
        CellsStatus,
        [
            *_READY,
            _column("Version", ".status.version", "integer"),
            _column("Reachable", ".status.reachable"),
            _column("Oldest", ".status.oldestIntentSeconds", "integer"),
            _column("Lag", ".status.lag", "integer"),
            _condition("Available", wide=True),
            _condition("Working", wide=True),
            _MESSAGE,
            _AGE,
        ],
        [
            _rule(
                "self.cells.all(c, has(c.cluster) != has(c.endpoints))", "give each cell either cluster or endpoints"
            ),
            _rule(
                "self.cells.all(c, !has(c.tls) || has(c.endpoints))",
                "tls belongs to endpoints; the certificates of a HoldfastCluster are known",
            ),
            _rule(
                "!has(self.queues) || self.queues.all(q, q.from != q.to && self.cells.exists(c, c.name == q.from) && "
                "self.cells.exists(c, c.name == q.to))",
                "in queues, from and to have to be two different cells of spec.cells",
            ),
            _rule(
                "!has(self.replicate) || self.replicate.all(r, self.cells.exists(c, c.name == r.from) && "
                "(has(r.to) ? r.to.all(t, t != r.from && self.cells.exists(c, c.name == t)) : self.cells.size() > 1))",
                "in replicate, from and to have to be different cells of spec.cells",
            ),
            _rule(
                "!has(self.replicate) || self.replicate.all(r, !r.prefix.startsWith('/cells/') && "
                "!'/cells/'.startsWith(r.prefix))",
                "in replicate, no prefix may have keys below /cells/, which each cell has for itself",
            ),
            _rule(
                "!has(self.replicate) || self.replicate.all(a, "
                "self.replicate.filter(b, b.prefix.startsWith(a.prefix)).size() == 1)",
                "in replicate, no prefix may begin with another one, or be given twice",
            ),
        ],
    )


if __name__ == "__main__":
    yaml.safe_dump_all(crds(), sys.stdout, sort_keys=False, width=120)
