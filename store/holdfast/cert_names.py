"""Accepts or refuses certificates by the names in them, in addition to their CA.

A CA vouches for every certificate that it has ever signed, including those of clients. A name in a certificate says
what it is for: its common name, a host in its subject alternative names (both as in etcd), or a URI there, such as
holdfast://CLUSTER/peer.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

SHOWN_NAMES, SHOWN_CHARACTERS = 4, 64  # of a certificate's common names, in a message

# As returned by ssl.SSLSocket.getpeercert.
Certificate = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CertNames:
    """Accepts a certificate that has one of these names. If none is given, accepts every certificate."""

    common_names: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        return bool(self.common_names or self.hostnames or self.uris)

    def refusal(self, certificate: Certificate | None) -> str:
        """The reason why `certificate` is not accepted; empty if it is."""
        if not self.given:
            return ""
        if not certificate:
            return "no certificate is shown"
        common = common_names(certificate)
        alternative = [(kind, value) for kind, value in certificate.get("subjectAltName", ())]
        if any(uri in self.uris for uri in uris(certificate)) or any(_is_for(alternative, h) for h in self.hostnames):
            return ""
        if self.common_names and len(common) > 1:
            return AMBIGUOUS.format(count=len(common), names=shown(common))
        if any(name in self.common_names for name in common):
            return ""
        return f"the certificate of {shown(common)} is not that of a peer"


# Which of several common names counts differs between programs: Go (and so etcd) takes the last one, others the first.
# A CA that checks one of them must not vouch for the other, so none counts.
AMBIGUOUS = "the certificate has {count} common names ({names}), so none of them counts; use one with a single one"


def common_names(certificate: Certificate | None) -> tuple[str, ...]:
    """All common names of the subject. Wherever a common name decides, a certificate must have exactly one."""
    subject = (certificate or {}).get("subject", ())
    return tuple(str(value) for part in subject for key, value in part if key == "commonName")


def uris(certificate: Certificate | None) -> tuple[str, ...]:
    """The URIs among the subject's alternative names."""
    return tuple(str(value) for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "URI")


def shown(names: tuple[str, ...]) -> str:
    """Common names for a message, of bounded length."""
    return ", ".join(repr(name[:SHOWN_CHARACTERS]) for name in names[:SHOWN_NAMES]) or "''"


def _is_for(alternative: list[tuple[str, str]], host: str) -> bool:
    """Whether a client that connects to `host` would accept such a certificate."""
    try:
        address = ip_address(host)
    except ValueError:
        return any(kind == "DNS" and _matches(value.lower(), host.lower()) for kind, value in alternative)
    return any(kind == "IP Address" and ip_address(value) == address for kind, value in alternative)


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        label, _, rest = host.partition(".")
        return bool(label) and rest == pattern[2:]
    return pattern == host


def share_a_ca(first: Path, second: Path) -> bool:
    """Whether the two PEM files have a certificate in common. Raises OSError, ValueError."""
    return bool(_certificates(first) & _certificates(second))


def _certificates(file: Path) -> set[bytes]:
    parts = file.read_text(encoding="utf-8", errors="replace").split(_BEGIN)[1:]
    return {ssl.PEM_cert_to_DER_cert(_BEGIN + part.partition(_END)[0] + _END) for part in parts}
