"""Certificates made for a test: an authority, servers at localhost, clients with a name."""

from __future__ import annotations

import datetime
import ssl
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(*texts: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in texts])


_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Signs. `certificate` is PEM. `bare`: its certificates name no keys of issuers, as those of many a private CA do;
    Go takes them, Python's defaults do not from 3.13 on."""

    def __init__(self, name: str, *, bare: bool = False) -> None:
        self._bare = bare
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._root = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = self._root.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )
        if self._bare:
            return builder
        return builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)

    def _sign(self, *names: str, uris: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName(
            [
                x509.DNSName("localhost"),
                x509.IPAddress(ip_address("127.0.0.1")),
                *(x509.UniformResourceIdentifier(uri) for uri in uris),
            ]
        )
        builder = self._builder(_name(*names), key).add_extension(alternative, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return _pem(key), signed.public_bytes(serialization.Encoding.PEM)

    def client(self, *names: str, uris: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
        """(key, certificate) of a client with these common names, usually one, in PEM."""
        return self._sign(*names, uris=uris)

    def write_server(self, directory: Path, uri: str = "") -> None:
        """tls.key, tls.crt and ca.crt of a server at localhost, with `uri` among its names."""
        key, certificate = self._sign("server", uris=(uri,) if uri else ())
        (directory / "tls.key").write_bytes(key)
        (directory / "tls.crt").write_bytes(certificate)
        (directory / "ca.crt").write_bytes(self.certificate)

    def load_client(self, context: ssl.SSLContext, name: str, directory: Path) -> None:
        key, certificate = self._sign(name)
        (directory / f"{name}.pem").write_bytes(key + certificate)
        context.load_cert_chain(directory / f"{name}.pem")
