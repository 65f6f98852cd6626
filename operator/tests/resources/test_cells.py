"""The Deployment of a HoldfastCells: a container for each command, the certificates, and what keeps it unprivileged."""

from __future__ import annotations

from typing import Any

from holdfast_operator.model.cells import CellsSpec
from holdfast_operator.resources.cells import CERTIFICATES, Place, workers

OF = {"kind": "HoldfastCells", "metadata": {"name": "regions", "namespace": "d", "uid": "u1"}}
SPEC: dict[str, Any] = {
    "cells": [{"name": name, "cluster": name} for name in ("eu", "us", "ap")],
    "queues": [{"from": "eu", "to": "us"}],
    "replicate": [{"prefix": "/a/$(X)/", "from": "eu"}, {"prefix": "/b/", "from": "us", "to": ["eu"]}],
}
PLACES = {
    "eu": Place(
        "eu-client.d.svc:2379", "eu-client-tls", (("ca.crt", "YQ=="), ("tls.crt", "Yg=="), ("tls.key", "Yw=="))
    ),
    "us": Place("us-1:2379,us-2:2379"),
    "ap": Place("ap:2379", "ap-client", (("ca.crt", "YQ=="),)),
}


def made(places: dict[str, Place] = PLACES, **more: Any) -> Any:
    return workers(OF, CellsSpec.model_validate({**SPEC, **more}), places, "holdfast:1")


def containers(deployment: Any) -> dict[str, Any]:
    return {container["name"]: container for container in deployment["spec"]["template"]["spec"]["containers"]}


def test_each_command_has_a_container() -> None:
    found = containers(made())
    commands = [" ".join(container["args"]) for container in found.values()]
    assert commands == [
        "cells janitor",
        "cells queue run eu us",
        "cells replicate eu us /a/$$(X)/",
        "cells replicate eu ap /a/$$(X)/",
        "cells replicate us eu /b/",
    ]
    assert all(len(name) <= 63 for name in found)


def test_the_commands_know_where_the_cells_are() -> None:
    deployment = made()
    for container in containers(deployment).values():
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment == {
            "HOLDFAST_CELLS": "ap=ap:2379 eu=eu-client.d.svc:2379 us=us-1:2379,us-2:2379",
            "HOLDFAST_CELLS_TLS": "ap=/etc/holdfast/cells/ap eu=/etc/holdfast/cells/eu",
        }
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"tls-ap": "/etc/holdfast/cells/ap", "tls-eu": "/etc/holdfast/cells/eu"}
    volumes = {v["name"]: v["secret"]["secretName"] for v in deployment["spec"]["template"]["spec"]["volumes"]}
    assert volumes == {"tls-ap": "ap-client", "tls-eu": "eu-client-tls"}


def test_new_certificates_mean_new_pods_and_keys_are_not_shown() -> None:
    def mark(**files: str) -> str:
        place = Place("eu:2379", "eu-client-tls", tuple((name.replace("_", "."), data) for name, data in files.items()))
        template = made({**PLACES, "eu": place})["spec"]["template"]
        return str(template["metadata"]["annotations"][CERTIFICATES])

    first = mark(ca_crt="YQ==", tls_crt="Yg==", tls_key="Yw==")
    assert mark(ca_crt="YQ==", tls_crt="ZA==", tls_key="Yw==") != first
    assert mark(ca_crt="YQ==", tls_crt="Yg==", tls_key="ZA==") == first


def test_the_pods_run_under_the_restricted_standard() -> None:
    deployment = made(replicas=2, resources={}, placement={"nodeSelector": {"tier": "cloud"}})
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["nodeSelector"] == {"tier": "cloud"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"] == {}
    assert deployment["spec"]["replicas"] == 2
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == "u1"
