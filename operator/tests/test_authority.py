"""The CA of a cluster: made once, found again, and never replaced in silence."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from holdfast_operator.resources import authority
from holdfast_operator.resources.authority import CA_LIFETIME, Authority, CertificateTrouble
from holdfast_operator.resources.certificates import CLIENT, EARLY, Wanted
from holdfast_operator.resources.common import Object

from . import earlier

SHOP = {
    "apiVersion": "holdfast.dev/v1alpha1",
    "kind": "HoldfastCluster",
    "metadata": {"name": "shop", "namespace": "default", "uid": "u1"},
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CA = authority.make("shop", NOW)
APPLICATION = Wanted("shop", "shop-client-tls", "shop client", "client", usages=CLIENT)


def stored(ca: Authority = CA, **data: bytes) -> Object:
    """The CA's Secret; with other fields where they are given (crt, key)."""
    secret = authority.own_secret(SHOP, ca)
    secret["data"] |= {f"tls.{name}": base64.b64encode(value).decode() for name, value in data.items()}
    return secret


def issued(ca: Authority = CA) -> Object:
    return authority.secret(SHOP, APPLICATION, ca, NOW)


def trouble(secret: Object | None, *others: Object, now: datetime = NOW) -> str:
    with pytest.raises(CertificateTrouble) as caught:
        authority.load(SHOP, secret, others, now)
    return str(caught.value)


def test_a_cluster_without_certificates_gets_a_ca() -> None:
    assert authority.load(SHOP, None, [], NOW) is None


@pytest.mark.parametrize("others", [[], [issued()], [issued(), {"metadata": {"name": "shop-peer-tls"}}]])
def test_the_ca_is_found_again(others: list[Object]) -> None:
    found = authority.load(SHOP, stored(), others, NOW)
    assert found is not None
    assert found.certificate == CA.certificate
    assert found.pem == CA.pem
    x509.load_pem_x509_certificate(authority.issue(found, APPLICATION, NOW)[0]).verify_directly_issued_by(
        CA.certificate
    )


def test_what_the_ca_signs_cannot_sign() -> None:
    """Even a certificate that was issued as a CA by mistake: the path ends at the first one."""
    constraints = CA.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_the_ca_of_an_earlier_operator_is_found() -> None:
    pem, key = earlier.make_ca("shop")
    found = authority.load(SHOP, earlier.secret(SHOP, "shop-ca", pem, key, pem), [], datetime.now(UTC))
    assert found is not None
    assert found.pem == pem


def test_a_ca_that_is_gone_is_not_made_again_while_others_trust_it() -> None:
    said = trouble(None, issued())
    assert "the Secret shop-ca with the CA is gone" in said
    assert "shop-client-tls" in said
    assert "kubectl -n default delete secret -l holdfast.dev/cluster=shop,holdfast.dev/component=tls" in said
    assert "uid u1" in said


def test_the_selector_in_the_message_finds_all_secrets() -> None:
    for secret in (stored(), issued()):
        labels = secret["metadata"]["labels"]
        assert labels["holdfast.dev/cluster"] == "shop"
        assert labels["holdfast.dev/component"] == "tls"


def test_a_ca_that_was_replaced_is_not_taken_over() -> None:
    other = authority.make("shop", NOW)
    said = trouble(stored(other), issued())
    assert "is not the one that the cluster's certificates were issued by" in said
    # One certificate that somebody put there says nothing about the CA.
    assert authority.load(SHOP, stored(), [issued(other), issued()], NOW) is not None


@pytest.mark.parametrize("owners", [None, [], [{"uid": "u0", "controller": True}], [{"uid": "u1"}]])
def test_a_secret_of_somebody_else_is_not_used(owners: list[dict[str, Any]] | None) -> None:
    secret = stored()
    secret["metadata"]["ownerReferences"] = owners
    assert "this HoldfastCluster (uid u1) is not its owner" in trouble(secret)


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def _pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _signed(by: Key, key: Key, *, bare: bool = False) -> bytes:
    """A certificate as that of the CA, with another key, signed by a third one. `bare`: without extensions."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(CA.certificate.subject)
        .issuer_name(CA.certificate.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + CA_LIFETIME)
    )
    if not bare:
        for kind in (x509.BasicConstraints, x509.KeyUsage):
            extension = CA.certificate.extensions.get_extension_for_class(kind)
            builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
LEAF, LEAF_KEY = authority.issue(CA, APPLICATION, NOW)


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        ({**stored(), "data": {}}, "is damaged: tls.crt is missing"),
        (stored(crt=b"?"), "is damaged: tls.crt is not a certificate"),
        (stored(key=b"?"), "is damaged: tls.key is not an unencrypted private key"),
        (stored(key=_pem(EC)), "is damaged: tls.key is not the key of tls.crt"),
        (stored(crt=LEAF, key=LEAF_KEY), "not a CA of this operator"),
        (stored(crt=_signed(EC, EC, bare=True), key=_pem(EC)), "not a CA of this operator"),
        (
            stored(crt=_signed(CA.key, EC), key=_pem(EC)),
            "not a CA of this operator",
        ),  # an intermediate CA is no root
        (stored(crt=_signed(RSA, RSA), key=_pem(RSA)), "not a CA of this operator"),
    ],
)
def test_a_damaged_ca_is_said_in_words(secret: Object, what: str) -> None:
    said = trouble(secret)
    assert what in said
    assert "Restore it from a backup" in said


def test_a_ca_that_is_over_signs_nothing() -> None:
    last = NOW + CA_LIFETIME
    assert authority.load(SHOP, stored(), [], last - timedelta(seconds=1)) is not None
    assert "expired on 2035-12-30" in trouble(stored(), now=last)
    assert "set the clock" in trouble(stored(), now=NOW - EARLY - timedelta(seconds=1))


def test_keys_are_not_shown() -> None:
    assert "key" not in repr(CA)
