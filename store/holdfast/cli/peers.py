"""Checks the flags that say which certificates are those of members."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable
from pathlib import Path

from holdfast.cert_names import CertNames, share_a_ca
from holdfast.cli.errors import fail
from holdfast.tls import TlsFiles


def files(
    certificate: Path | None, key: Path | None, ca: Path | None, minimum: ssl.TLSVersion, *, verify: bool
) -> TlsFiles:
    """`verify`: --peer-client-cert-auth is set."""
    if verify and ca is None:
        fail("--peer-client-cert-auth needs --peer-trusted-ca-file, the CA to verify members by")
    return TlsFiles(certificate, key, ca, minimum)


def check_schemes(urls: Iterable[str], *, tls: bool) -> None:
    for url in urls:
        if url.startswith("https") is not tls:
            fail(
                f"{url}: with TLS between members all peer URLs are https, without none; "
                "give --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, or correct the URL"
            )


def names(common_names: str, hostnames: str, uris: str) -> CertNames:
    if common_names and hostnames:
        fail("--peer-cert-allowed-cn and --peer-cert-allowed-hostname exclude each other; give one of them")
    lists = [
        tuple(name.strip() for name in text.split(",") if name.strip()) for text in (common_names, hostnames, uris)
    ]
    return CertNames(*lists)


def check_who_is_a_peer(clients: Path | None, peers: Path | None, mode: str) -> None:
    """Refuse a CA that signs certificates of both clients and members: with it, every client could act as a member."""
    try:
        shared = clients is not None and peers is not None and share_a_ca(clients, peers)
    except (OSError, ValueError) as error:
        fail(f"cannot read the CA files {clients} and {peers}: {error}")
    if not shared:
        return
    line = (
        f"--trusted-ca-file {clients} and --peer-trusted-ca-file {peers} have a CA in common: any client's certificate "
        "could join as a member and write everything; say what members' certificates are called by "
        "--peer-cert-allowed-cn, --peer-cert-allowed-hostname or --peer-cert-allowed-uri, or give members their own "
        "CA"
    )
    if mode == "managed":  # by an operator of an earlier version, which knows nothing of these flags
        logging.getLogger("holdfast.node").warning("%s", line)
    else:
        fail(f"{line}, or go on as before with --peer-accept-any-certificate")
