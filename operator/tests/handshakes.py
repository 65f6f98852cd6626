"""TLS handshakes between two contexts, in memory: the host name that a client checks needs no DNS for that."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

from holdfast.tls import TlsFiles
from holdfast_operator.resources.common import Object

ROUNDS = 10  # a handshake takes three


def mounted(secret: Object, directory: Path) -> TlsFiles:
    """The files of a Secret as a pod has them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in secret["data"].items():
        (directory / name).write_bytes(base64.b64decode(value))
    return TlsFiles(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")


def strict_client(files: TlsFiles) -> ssl.SSLContext:
    """A client that verifies as Python does by default from 3.13 on."""
    context = ssl.create_default_context(cafile=str(files.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(str(files.certificate), str(files.key))
    return context


def strict_server(files: TlsFiles) -> ssl.SSLContext:
    """A server that demands clients' certificates, and verifies them strictly."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(str(files.certificate), str(files.key))
    return context


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect to `host`. Returns (what the server sees, what the client sees). Raises ssl.SSLError if one of the two
    refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=host),
    )
    for _ in range(ROUNDS):
        waiting = 0
        for side in reversed(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            return sides
    raise AssertionError("the handshake does not end")
