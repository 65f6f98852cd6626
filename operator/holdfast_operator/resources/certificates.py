"""Which certificates a cluster has, and when one of them has to be issued again.

A certificate says two things: by a URI, holdfast://CLUSTER/ROLE, what its holder may do; by host names and addresses,
under which names its holder may be reached. Each role has as few of both as it needs, so that the key of an edge
replica or of an application opens nothing that belongs to a voter. Nothing here reads a clock or writes anything:
`due` compares a Secret with what is wanted, and `authority.secret` makes the new one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.resources.common import (
    Object,
    client_secret,
    client_service,
    edge_secret,
    operator_secret,
    peer_secret,
    peers_service,
    role_uri,
    server_secret,
)
from holdfast_operator.resources.pool import replica_secret

Role = Literal["peer", "server", "edge", "client", "operator"]
Address = IPv4Address | IPv6Address

LIFETIME = timedelta(days=365)
EARLY = timedelta(hours=1)  # valid from before it is issued: the clocks of other nodes may be behind the operator's
CLIENT = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH})
BOTH = CLIENT | {ExtendedKeyUsageOID.SERVER_AUTH}
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One certificate as it has to be, and the Secret that it is kept in."""

    cluster: str
    secret: str
    common_name: str
    role: Role
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[Address, ...] = ()
    usages: frozenset[ObjectIdentifier] = CLIENT

    @property
    def uri(self) -> str:
        return role_uri(self.cluster, self.role)


def wanted(
    cluster: Object, spec: ClusterSpec, edge_replicas: Mapping[str, Sequence[str]], services: Iterable[str]
) -> list[Wanted]:
    """All certificates of the cluster, except that of its CA. `edge_replicas`: the StatefulSet of each edge replica,
    and the Services of its pool. `services`: the Services of all pools that lead to all of their replicas."""
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    voters = _voter_names(name, namespace)
    extra_names, extra_addresses = _split(spec.tls.extraSANs or [])
    edge = f"{name}-edge"

    # The names of Services that lead to edge replicas are in the voters' certificate, too, because the replicas that
    # 0.1.0 made mount it; and it is a client's as well, because the voters that 0.1.0 made show it to one another.
    of_voters = _service_names([client_service(name), peers_service(name), edge, *services], namespace)
    found = [
        Wanted(name, peer_secret(name), f"{name} peer", "peer", tuple(sorted(voters)), (), BOTH),
        _serving(name, server_secret(name), "server", [*voters, *of_voters, *extra_names], extra_addresses),
        Wanted(name, client_secret(name), f"{name} client", "client"),
        Wanted(name, operator_secret(name), f"{name} operator", "operator"),
    ]
    # A certificate with a voter's name passes --peer-cert-allowed-hostname, so edge replicas never get such a name.
    safe = [extra for extra in extra_names if not _belongs_to_voters(extra, name, namespace)]
    for replica, of_pool in sorted(edge_replicas.items()):
        names = [*_service_names([edge, *of_pool], namespace), *safe]
        found.append(_serving(name, replica_secret(replica), "edge", names, extra_addresses))
    return found


def shared(cluster: Object, services: Iterable[str]) -> Wanted:
    """The certificate that all edge replicas of the oldest rendering mount."""
    name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
    every = [f"*.{namespace}.svc", f"*.{namespace}.svc.cluster.local"]  # as it was issued before
    return _serving(name, edge_secret(name), "edge", [*_service_names(services, namespace), *every], [])


def _serving(cluster: str, secret: str, role: Role, names: Iterable[str], addresses: Iterable[Address]) -> Wanted:
    hosts = tuple(sorted({"localhost", *names}))
    reached = tuple(sorted({*_LOOPBACK, *addresses}, key=str))
    return Wanted(cluster, secret, f"{cluster} {role}", role, hosts, reached, BOTH)


def _service_names(services: Iterable[str], namespace: str) -> list[str]:
    domains = ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    return [service + domain for service in services for domain in domains]


def _voter_names(cluster: str, namespace: str) -> list[str]:
    """Voters are pods of a headless Service. The shortest form (*.SERVICE) is left out, because TLS libraries accept a
    wildcard only before two labels or more."""
    return [f"*.{name}" for name in _service_names([peers_service(cluster)], namespace) if "." in name]


def _belongs_to_voters(name: str, cluster: str, namespace: str) -> bool:
    return any(
        name == domain or name.endswith(f".{domain}") for domain in _service_names([peers_service(cluster)], namespace)
    )


def _split(names: Iterable[str]) -> tuple[list[str], list[Address]]:
    hosts, addresses = [], []
    for name in names:
        try:
            addresses.append(ip_address(name))
        except ValueError:
            hosts.append(name)
    return hosts, addresses


# ---- what is in force ------------------------------------------------------------------------------------------


class Unreadable(Exception):
    """A Secret does not hold a certificate and its key. The message says what is wrong with it."""


def read(secret: Object) -> tuple[x509.Certificate, PrivateKeyTypes]:
    """The certificate in a Secret and the key that belongs to it. Raises Unreadable."""
    try:
        certificate = x509.load_pem_x509_certificate(field(secret, "tls.crt"))
    except ValueError as error:
        raise Unreadable("tls.crt is not a certificate") from error
    try:
        key = load_pem_private_key(field(secret, "tls.key"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unreadable("tls.key is not an unencrypted private key") from error
    try:
        same = certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unreadable("tls.crt has a key of an unknown kind") from error
    if not same:
        raise Unreadable("tls.key is not the key of tls.crt")
    return certificate, key


def field(secret: Object, name: str) -> bytes:
    """One value of a Secret, decoded. Raises Unreadable."""
    try:
        return base64.b64decode((secret.get("data") or {})[name], validate=True)
    except KeyError as error:
        raise Unreadable(f"{name} is missing") from error
    except (binascii.Error, TypeError, ValueError) as error:
        raise Unreadable(f"{name} is not base64") from error


def trusted(secret: Object) -> list[x509.Certificate]:
    """The CAs that the holder of a Secret trusts. Raises Unreadable."""
    try:
        return x509.load_pem_x509_certificates(field(secret, "ca.crt"))
    except ValueError as error:
        raise Unreadable("ca.crt is not a certificate") from error


def due(secret: Object | None, wanted: Wanted, ca: x509.Certificate, now: datetime) -> str:
    """Why a new certificate has to be issued; empty if the one in the Secret is still in force.

    The old one stays valid: it has the same CA. So those who still use it and those who have read the new one accept
    each other, and nothing has to be restarted.
    """
    if secret is None:
        return "there is none yet"
    try:
        certificate, _ = read(secret)
        anchors = trusted(secret)
    except Unreadable as error:
        return str(error)
    if not signed_by(certificate, ca):
        return "the CA of the cluster has not signed it"
    if anchors != [ca]:
        return "ca.crt is not the CA of the cluster"
    try:
        return _difference(certificate, wanted) or _age(certificate, now)
    except ValueError as error:  # an extension that cannot be decoded, or is there twice
        return f"the certificate is malformed: {error}"


def signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _difference(certificate: x509.Certificate, wanted: Wanted) -> str:
    common = [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common != [wanted.common_name]:
        return f"it is that of {', '.join(common) or 'nobody'} instead of {wanted.common_name}"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        return f"it has no {error.oid._name}"
    roles = names.get_values_for_type(x509.UniformResourceIdentifier)
    if roles != [wanted.uri]:
        return f"its role is {', '.join(roles) or 'none'} instead of {wanted.uri}"
    if set(uses) != wanted.usages:
        return "it is for other uses (server, client) than its role has"
    has = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    needs = {*wanted.dns_names, *map(str, wanted.ip_addresses)}
    if missing := needs - has:
        return f"it is not valid for {', '.join(sorted(missing))}"
    if surplus := has - needs:
        return f"it is also valid for {', '.join(sorted(surplus))}, which its holder does not have"
    return ""


def _age(certificate: x509.Certificate, now: datetime) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"it is valid only from {begin:%Y-%m-%d %H:%M} UTC on: the clock was set back"
    if now >= end:
        return f"it expired on {end:%Y-%m-%d}"
    if end - begin > LIFETIME + EARLY:
        return f"it is valid for {(end - begin).days} days instead of {LIFETIME.days}"
    if now >= begin + (end - begin) * 2 / 3:
        return f"two thirds of its lifetime are over; it expires on {end:%Y-%m-%d}"
    return ""
