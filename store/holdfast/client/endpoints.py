"""Parses endpoints. The scheme decides on TLS and is never ignored: a password meant for https:// must not be sent in
clear text.

For HOST:PORT without a scheme, TLS is used if certificates are given, as in etcdctl. A port is required, and unix
sockets are not supported.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from pathlib import Path

from holdfast.client.connection import Tls

# The places where Go looks for the system's CAs.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

FORM = "write HOST:PORT, http://HOST:PORT or https://HOST:PORT"


def listed(endpoints: str | Iterable[str]) -> list[str]:
    """Endpoints as a list, given as one or separated by commas."""
    found = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    return [endpoint.strip() for endpoint in found if endpoint.strip()]


def parse(endpoints: str | Iterable[str], tls: Tls | None, directory: str = "") -> tuple[list[str], Tls | None]:
    """Parse endpoints to (list of HOST:PORT, TLS settings; None: no TLS). The certificates in `directory` are used if
    `tls` is not given and no endpoint begins with http://. Raises ValueError."""
    found = [_split(endpoint) for endpoint in listed(endpoints)]
    if not found:
        raise ValueError(f"no endpoints given: {FORM}")
    schemes = {scheme for scheme, _ in found}
    if {"http", "https"} <= schemes:
        raise ValueError(
            "some endpoints are http:// and some https://: one client speaks TLS to all of them or to none"
        )
    if "http" in schemes and tls is not None:
        raise ValueError("certificates are given, and an endpoint says http://, which is without TLS: write https://")
    if tls is None and directory and "http" not in schemes:
        tls = Tls.from_directory(directory)
    if tls is None and "https" in schemes:
        tls = Tls(trusted_by_the_system())
    return [address for _, address in found], tls


def _split(endpoint: str) -> tuple[str, str]:
    """(scheme, HOST:PORT); the scheme may be empty."""
    scheme, mark, rest = endpoint.partition("://")
    if not mark:
        scheme, rest = "", endpoint
    elif scheme in ("unix", "unixs"):
        raise ValueError(f"{endpoint!r}: unix sockets are not supported; {FORM}")
    elif scheme not in ("http", "https"):
        raise ValueError(f"{endpoint!r}: the scheme {scheme!r} is unknown; {FORM}")
    address = rest.removesuffix("/")
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    odd = any(character in bare for character in "/@?#[]% \t") or (":" in bare and bare == host)
    if not bare or odd or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{endpoint!r} is not HOST:PORT: {FORM}")
    return scheme, address


def trusted_by_the_system() -> Path:
    """The bundle of CAs that SSL_CERT_FILE names, or the system's. Raises ValueError if there is none: a path that is
    wrong must not mean that more is trusted."""
    named = os.environ.get("SSL_CERT_FILE", "")
    if named and not Path(named).is_file():
        raise ValueError(f"SSL_CERT_FILE names {named}, which is no file")
    known = ssl.get_default_verify_paths().cafile  # SSL_CERT_FILE if set
    for place in (known, *_BUNDLES):
        if place and Path(place).is_file():
            return Path(place)
    raise ValueError("https:// without a CA, and this system has no bundle of CAs that it trusts: give the server's CA")
