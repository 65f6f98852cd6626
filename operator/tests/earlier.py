"""Certificates as earlier operators made them: for ten years, and one for all edge replicas. They are in use still."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from holdfast_operator.resources.common import (
    Object,
    client_secret,
    edge_secret,
    labels,
    metadata,
    operator_secret,
    peer_secret,
    role_uri,
    server_secret,
)

YEARS = 10


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
    )


def make_ca(cluster: str) -> tuple[bytes, bytes]:
    """(certificate, key) as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"holdfast CA {cluster}")
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(f"holdfast CA {cluster}", name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def issue(ca_certificate: bytes, ca_key: bytes, name: str, hosts: list[str], uri: str = "") -> tuple[bytes, bytes]:
    """A certificate for `name` in the role `uri`, and for `hosts` if it is a server's. (certificate, key) as PEM."""
    ca = x509.load_pem_x509_certificate(ca_certificate)
    signer = serialization.load_pem_private_key(ca_key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    builder = (
        _builder(name, ca.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    names: list[x509.GeneralName] = [x509.DNSName(h) for h in hosts]
    if uri:
        names.append(x509.UniformResourceIdentifier(uri))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def service_hosts(namespace: str) -> list[str]:
    """All Services of the namespace, because clients reach members and replicas through Services."""
    return [*(f"*.{domain}" for domain in _domains(namespace)), "localhost"]


def peer_hosts(cluster: str, namespace: str) -> list[str]:
    """The host names of voters. Edge certificates are valid for none of these names, which also distinguishes them."""
    return [f"*.{cluster}-peers.{domain}" for domain in _domains(namespace)]


def _domains(namespace: str) -> tuple[str, str]:
    return f"{namespace}.svc", f"{namespace}.svc.cluster.local"


def secret(of: Object, name: str, certificate: bytes, key: bytes, ca: bytes) -> Object:
    meta = of["metadata"]
    data = {"tls.crt": certificate, "tls.key": key, "ca.crt": ca}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": metadata(name, meta["namespace"], of, labels(meta["name"], "tls")),
        "data": {k: base64.b64encode(v).decode() for k, v in data.items()},
    }


def _certificates(name: str, namespace: str) -> dict[str, tuple[str, str, list[str]]]:
    """(common name, role, host names) of the certificate in each Secret."""
    peers, services = peer_hosts(name, namespace), service_hosts(namespace)
    return {
        server_secret(name): (f"{name} server", "server", [*peers, *services]),
        peer_secret(name): (f"{name} peer", "peer", peers),
        edge_secret(name): (f"{name} server", "edge", services),
        client_secret(name): (f"{name} client", "client", []),
        operator_secret(name): (f"{name} operator", "operator", []),
    }


def secret_names(cluster: str) -> list[str]:
    return list(_certificates(cluster, ""))


def issued(of: Object, secret_name: str, ca_certificate: bytes, ca_key: bytes) -> Object:
    """The Secret of this name, with a new certificate."""
    name, namespace = of["metadata"]["name"], of["metadata"]["namespace"]
    common, role_, hosts = _certificates(name, namespace)[secret_name]
    found = issue(ca_certificate, ca_key, common, hosts, role_uri(name, role_))
    return secret(of, secret_name, *found, ca_certificate)


def all_secrets(of: Object, ca_certificate: bytes, ca_key: bytes) -> list[Object]:
    """The Secrets of the certificates that the CA issues; each is made once."""
    return [issued(of, name, ca_certificate, ca_key) for name in secret_names(of["metadata"]["name"])]
