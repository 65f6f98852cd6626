"""The CA of a cluster: the Secret that holds it, and what it signs.

A cluster trusts one CA for ten years. Another CA cuts members off from one another and from their clients until all
have the new one, so the operator never makes one where there may have been one before: it says what is wrong, and
somebody decides.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from holdfast_operator.resources import certificates
from holdfast_operator.resources.certificates import EARLY, LIFETIME, Unreadable, Wanted
from holdfast_operator.resources.common import CLUSTER_LABEL, COMPONENT_LABEL, Object, ca_secret, labels, metadata

CA_LIFETIME = timedelta(days=3650)
_COMPONENT = "tls"


class CertificateTrouble(Exception):
    """No certificate can be issued. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def make(cluster: str, now: datetime) -> Authority:
    """A new CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"holdfast CA {cluster}")
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(ca: Authority, wanted: Wanted, now: datetime) -> tuple[bytes, bytes]:
    """A certificate and its key, as PEM. The key is always a new one: nothing depends on the old key, and a copy of
    the old key becomes worthless when its certificate expires."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            *map(x509.DNSName, wanted.dns_names),
            *map(x509.IPAddress, wanted.ip_addresses),
            x509.UniformResourceIdentifier(wanted.uri),
        ]
    )
    certificate = (
        _builder(_name(wanted.common_name), ca.certificate.subject, key.public_key(), now, LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(sorted(wanted.usages, key=lambda o: o.dotted_string)), critical=False)
        .add_extension(names, critical=False)  # critical only if there were no subject (RFC 5280, 4.2.1.6)
        .add_extension(_key_of(ca.certificate), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def secret(of: Object, wanted: Wanted, ca: Authority, now: datetime) -> Object:
    """The Secret with a newly issued certificate. Its owner is `of`. Whoever mounts it reads it again by itself."""
    return _secret(of, wanted.cluster, wanted.secret, *issue(ca, wanted, now), ca.pem)


def own_secret(cluster: Object, ca: Authority) -> Object:
    """The Secret that keeps the CA."""
    name = cluster["metadata"]["name"]
    return _secret(cluster, name, ca_secret(name), ca.pem, _pem(ca.key), ca.pem)


def load(cluster: Object, secret: Object | None, others: Iterable[Object], now: datetime) -> Authority | None:
    """The CA in its Secret; None if this cluster has none yet and `make` has to make one. `others`: the Secrets of the
    cluster's certificates that exist. Raises CertificateTrouble."""
    name = cluster["metadata"]["name"]
    if secret is None:
        if there := sorted(str(other["metadata"]["name"]) for other in others):
            raise CertificateTrouble(
                f"the Secret {ca_secret(name)} with the CA is gone, but there are certificates that it issued "
                f"({', '.join(there)}). {_ways_out(cluster)}"
            )
        return None
    _check_owner(cluster, secret)
    ca = _read(cluster, secret, now)
    known = [anchors for anchors in map(_anchors, others) if anchors]
    if known and not any(ca.certificate in anchors for anchors in known):
        raise CertificateTrouble(
            f"the CA in the Secret {ca_secret(name)} is not the one that the cluster's certificates were issued by: "
            f"the Secret was replaced. {_ways_out(cluster)}"
        )
    return ca


def _read(cluster: Object, secret: Object, now: datetime) -> Authority:
    where = f"the Secret {ca_secret(cluster['metadata']['name'])} with the CA"
    try:
        certificate, key = certificates.read(secret)
    except Unreadable as error:
        raise CertificateTrouble(f"{where} is damaged: {error}. {_ways_out(cluster)}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _may_sign(certificate):
        raise CertificateTrouble(f"{where} holds a certificate that is not a CA of this operator. {_ways_out(cluster)}")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= end:
        raise CertificateTrouble(f"{where} is of no use: the CA expired on {end:%Y-%m-%d}. {_ways_out(cluster)}")
    if now < begin:
        raise CertificateTrouble(
            f"{where} is valid only from {begin:%Y-%m-%d %H:%M} UTC on, and here it is {now:%Y-%m-%d %H:%M} UTC: "
            "set the clock of the operator's node"
        )
    return Authority(certificate, key)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return (
            certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            and certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
            and certificates.signed_by(certificate, certificate)
        )
    except (x509.ExtensionNotFound, ValueError):
        return False


def _check_owner(cluster: Object, secret: Object) -> None:
    """A Secret that belonged to an earlier cluster of the same name is not ours, either."""
    uid = cluster["metadata"]["uid"]
    owners = secret["metadata"].get("ownerReferences") or []
    if not any(owner.get("controller") and owner["uid"] == uid for owner in owners):
        raise CertificateTrouble(
            f"the Secret {secret['metadata']['name']} exists, but this HoldfastCluster (uid {uid}) is not its owner. "
            "If it belongs to an earlier cluster of this name, wait until Kubernetes has removed it; otherwise remove "
            "or rename it, or rename this cluster"
        )


def _anchors(secret: Object) -> list[x509.Certificate]:
    try:
        return certificates.trusted(secret)
    except Unreadable:
        return []  # `due` says so, and it is issued again


def _ways_out(cluster: Object) -> str:
    meta = cluster["metadata"]
    selector = f"{CLUSTER_LABEL}={meta['name']},{COMPONENT_LABEL}={_COMPONENT}"
    return (
        f"Restore it from a backup, with this cluster (uid {meta['uid']}) as its owner. Or give the cluster a new CA: "
        f"kubectl -n {meta['namespace']} delete secret -l {selector}; until all pods have read their new certificates "
        "(a minute or two) they refuse one another, and applications need the new client Secret"
    )


# ---- X.509 -----------------------------------------------------------------------------------------------------


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_of(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Names the CA's key as the CA does itself, which is what verifiers compare."""
    named = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _secret(of: Object, cluster: str, name: str, certificate: bytes, key: bytes, ca: bytes) -> Object:
    data = {"tls.crt": certificate, "tls.key": key, "ca.crt": ca}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": metadata(name, of["metadata"]["namespace"], of, labels(cluster, _COMPONENT)),
        "data": {key_: base64.b64encode(value).decode() for key_, value in data.items()},
    }
