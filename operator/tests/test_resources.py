"""The objects made from a spec: names, stability of the template, certificates."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from holdfast.cert_names import CertNames
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.pool import PoolSpec
from holdfast_operator.resources import cluster, pool
from pydantic import ValidationError

from . import earlier

OWNER = {
    "apiVersion": "holdfast.dev/v1alpha1",
    "kind": "HoldfastCluster",
    "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
}


def spec(**fields: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"version": "0.1.0", **fields})


def test_the_template_does_not_change_with_the_number_of_voters() -> None:
    """Otherwise a change from 3 to 5 would replace every pod."""
    three = cluster.voter_template("shop", "default", spec(voters={"replicas": 3}), "i")
    five = cluster.voter_template("shop", "default", spec(voters={"replicas": 5}), "i")
    assert three == five
    assert three != cluster.voter_template("shop", "default", spec(), "another image")


def test_voters_are_ordered_by_nobody_but_us() -> None:
    made = cluster.voters(OWNER, spec(), "image", 3)
    assert made["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert made["spec"]["podManagementPolicy"] == "Parallel"
    assert made["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert set(made["spec"]["selector"]["matchLabels"]) == {"holdfast.dev/cluster", "holdfast.dev/component"}


def test_pods_are_restricted() -> None:
    made = cluster.voter_pod("shop", "default", spec(), "image")
    assert made["securityContext"]["runAsNonRoot"] is True
    assert made["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = made["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert made["automountServiceAccountToken"] is False


def test_no_derived_name_is_a_bare_one() -> None:
    names = [s["metadata"]["name"] for s in cluster.services(OWNER)]
    assert names == ["shop-client", "shop-peers", "shop-edge"]
    assert "shop" not in names


@pytest.mark.parametrize(("voters", "wanted", "available"), [(3, 3, 2), (3, 5, 3), (5, 3, 3), (1, 3, 2), (7, 7, 4)])
def test_a_majority_stays(voters: int, wanted: int, available: int) -> None:
    made = cluster.disruption_budget(OWNER, voters, wanted)
    assert made is not None
    assert made["spec"]["minAvailable"] == available


def test_one_voter_can_be_drained() -> None:
    assert cluster.disruption_budget(OWNER, 1, 1) is None


def test_replicas_outlast_an_unreachable_node() -> None:
    wanted = PoolSpec.model_validate(
        {"clusterRef": {"name": "shop"}, "placement": {"nodeSelector": {"a": "b"}}, "prefixes": ["/b/", "/a/"]}
    )
    made = pool.replica_pod("berlin", "default", wanted, spec(), "image")
    endless = [t for t in made["tolerations"] if t["effect"] == "NoExecute" and "tolerationSeconds" not in t]
    assert {t["key"] for t in endless} == {"node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"}
    arguments = made["containers"][0]["args"]
    assert [a for a in arguments if a.startswith("--prefix")] == ["--prefix=/a/", "--prefix=/b/"]


@pytest.mark.parametrize("anonymous", [False, True])
def test_replicas_serve_everyone_only_if_the_pool_says_so(anonymous: bool) -> None:
    fields = {"clusterRef": {"name": "shop"}, "placement": {"nodeSelector": {"a": "b"}}, "prefixes": ["/"]}
    wanted = PoolSpec.model_validate({**fields, "anonymousReads": anonymous})
    made = pool.replica_pod("berlin", "default", wanted, spec(), "image")
    assert ("--anonymous-reads" in made["containers"][0]["args"]) is anonymous


def test_certificates_are_issued_for_members_and_services() -> None:
    certificate, key = earlier.make_ca("shop")
    server, _ = earlier.issue(
        certificate, key, "shop server", [*earlier.peer_hosts("shop", "default"), *earlier.service_hosts("default")]
    )
    loaded = x509.load_pem_x509_certificate(server)
    loaded.verify_directly_issued_by(x509.load_pem_x509_certificate(certificate))
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )
    assert "*.shop-peers.default.svc" in names
    assert "*.default.svc" in names
    client, _ = earlier.issue(certificate, key, "shop client", [])
    usages = x509.load_pem_x509_certificate(client).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert x509.oid.ExtendedKeyUsageOID.SERVER_AUTH not in usages


def test_each_role_has_its_own_certificate_and_only_voters_have_that_of_peers() -> None:
    made = {s["metadata"]["name"]: s["data"] for s in earlier.all_secrets(OWNER, *earlier.make_ca("shop"))}
    roles = {}
    for name, data in made.items():
        loaded = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
        names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (roles[name],) = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert roles == {
        f"shop-{role}-tls": f"holdfast://shop/{role}" for role in ("server", "peer", "edge", "client", "operator")
    }
    assert len({data["tls.key"] for data in made.values()}) == len(made)
    secured = spec(tls={"mode": "SelfManaged"})
    voter = cluster.voter_pod("shop", "default", secured, "image")
    wanted = PoolSpec.model_validate(
        {"clusterRef": {"name": "shop"}, "placement": {"nodeSelector": {"a": "b"}}, "prefixes": ["/"]}
    )
    replica = pool.replica_pod("berlin", "default", wanted, secured, "image")
    mounted = [{v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v} for pod in (voter, replica)]
    assert mounted == [{"shop-server-tls", "shop-peer-tls"}, {"shop-edge-tls"}]
    arguments = voter["containers"][0]["args"]
    assert "--peer-cert-allowed-uri=holdfast://shop/peer" in arguments
    assert "--peer-cert-allowed-hostname=shop-voter-0.shop-peers.default.svc" in arguments
    assert "--peer-cert-file=/etc/holdfast/peer-tls/tls.crt" in arguments


def _shown(data: dict[str, str], directory: Path) -> dict[str, Any]:
    """As a peer sees the certificate."""
    file = directory / "shown.pem"
    file.write_bytes(base64.b64decode(data["tls.crt"]))
    return ssl._ssl._test_decode_cert(str(file))  # type: ignore[attr-defined,no-any-return]


def test_voters_take_voters_for_peers_old_ones_too_and_nobody_else(tmp_path: Path) -> None:
    ca = earlier.make_ca("shop")
    made = {s["metadata"]["name"]: s["data"] for s in earlier.all_secrets(OWNER, *ca)}
    # As it was issued before there were roles.
    old, key = earlier.issue(
        *ca, "shop server", [*earlier.peer_hosts("shop", "default"), *earlier.service_hosts("default")]
    )
    before = earlier.secret(OWNER, "old", old, key, ca[0])["data"]
    voter = cluster.voter_pod("shop", "default", spec(tls={"mode": "SelfManaged"}), "image")
    flags = dict(a.split("=", 1) for a in voter["containers"][0]["args"] if "peer-cert-allowed" in a)
    names = CertNames(
        hostnames=(flags["--peer-cert-allowed-hostname"],),
        uris=(flags["--peer-cert-allowed-uri"],),
    )
    refused = {name for name, data in made.items() if names.refusal(_shown(data, tmp_path))}
    assert refused == {"shop-edge-tls", "shop-client-tls", "shop-operator-tls"}
    assert not names.refusal(_shown(before, tmp_path))


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        spec(nonsense=1)
