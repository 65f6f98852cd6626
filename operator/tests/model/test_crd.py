"""The CRDs: structural schemas that `kubectl explain` and `kubectl get` show well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from holdfast_operator.model.crd import crds

_NUMBERS = {"relaysPerSite": (0, 8), "stalenessTargetSeconds": (1, 86400)}
FREE_FORM = {".spec.voters.podOverlay", ".spec.podOverlay"}


def _walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _walk(schema[key], f"{path}[]")


def _fields() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (crd["spec"]["names"]["kind"], path, schema)
        for crd in crds()
        for path, schema in _walk(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    ]


@pytest.mark.parametrize(("kind", "path", "schema"), [pytest.param(*f, id=f"{f[0]}{f[1]}") for f in _fields()])
def test_schemas_are_structural_and_described(kind: str, path: str, schema: dict[str, Any]) -> None:
    assert "type" in schema
    assert not {"$ref", "anyOf", "allOf", "oneOf"} & set(schema)
    assert ("x-kubernetes-preserve-unknown-fields" in schema) is (path in FREE_FORM)
    if not path.endswith("[]") and path not in (".apiVersion", ".kind", ".metadata"):
        text = schema.get("description", "")
        assert text, f"kubectl explain has nothing to say about {kind}{path}"
        assert text.endswith(".")


def test_the_api_server_refuses_what_the_model_does() -> None:
    spec = {path: schema for kind, path, schema in _fields() if kind == "HoldfastEdgePool"}
    limits = {name: (spec[f".spec.{name}"]["minimum"], spec[f".spec.{name}"]["maximum"]) for name in _NUMBERS}
    assert limits == _NUMBERS


def test_the_prefixes_of_a_pool_can_be_changed() -> None:
    (pool,) = [crd for crd in crds() if crd["spec"]["names"]["kind"] == "HoldfastEdgePool"]
    spec = pool["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    fixed = [rule["rule"] for rule in spec["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    assert fixed == ["self.clusterRef == oldSelf.clusterRef", "self.storage == oldSelf.storage"]


@pytest.mark.parametrize("crd", crds(), ids=lambda crd: str(crd["spec"]["names"]["kind"]))
def test_ready_is_the_first_column(crd: dict[str, Any]) -> None:
    columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
    assert (columns[0]["name"], columns[0]["jsonPath"]) == ("Ready", '.status.conditions[?(@.type=="Ready")].status')
    assert not [c for c in columns if "rollout" in c["jsonPath"]]
    assert len({c["name"] for c in columns}) == len(columns)
