"""TLS contexts from files that are read again when they change, because certificates are rotated while a server runs.

A new connection uses the current files (checked at most once a second). If the files cannot be used, for example while
they are half-written, the last good ones stay in use and an error is logged.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.cert_names import CertNames

log = logging.getLogger("holdfast.tls")

LOOK_SECONDS = 1.0
VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class PeerTls:
    """How to connect to a peer: `context` returns the current TLS context, `names` are accepted in its certificate."""

    context: Callable[[], ssl.SSLContext]
    names: CertNames


class TlsError(Exception):
    """The files cannot be used. The message is one line that says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `ca` verifies the other side. If a server has it, clients must present a certificate signed by it."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2

    @property
    def given(self) -> bool:
        return self.certificate is not None or self.key is not None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """A value that changes when one of the files does. Raises OSError."""
        paths = [path for path in (self.certificate, self.key, self.ca) if path is not None]
        stats = [path.stat() for path in paths]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _context(files: TlsFiles, purpose: ssl.Purpose) -> ssl.SSLContext:
    if files.certificate is None or files.key is None:
        raise TlsError("TLS needs both a certificate and a key file")
    try:
        context = ssl.create_default_context(purpose, cafile=None if files.ca is None else str(files.ca))
        context.load_cert_chain(str(files.certificate), str(files.key))
    except OSError as error:  # includes ssl.SSLError
        shown = ", ".join(str(path) for path in (files.certificate, files.key, files.ca) if path is not None)
        raise TlsError(f"cannot use the TLS files {shown}: {error}") from error
    context.minimum_version = files.minimum
    # From Python 3.13 on, the default also refuses certificates that lack extensions which RFC 5280 requires of an
    # issuer (such as the key identifier). Go, and so etcd, accepts them, and many private CAs issue them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class _Fresh:
    """Keeps the newest context that could be made from the files."""

    def __init__(self, files: TlsFiles, make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._stamp = self._look()
        self._context = make()
        self._looked_at = time.monotonic()
        self.changed_at = 0.0  # wall clock, as in the times of TLS sessions

    def _look(self) -> object:
        try:
            return self._files.stamp()
        except OSError as error:
            raise TlsError(f"cannot read the TLS file {error.filename}: {error.strerror}") from error

    def get(self) -> ssl.SSLContext:
        now = time.monotonic()
        if now < self._looked_at + LOOK_SECONDS:
            return self._context
        self._looked_at = now
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._context = self._make()
                self._stamp = stamp
                self.changed_at = time.time()
                log.info("the TLS files of %s have changed: new connections use them", self._files.certificate)
        except TlsError as error:
            log.error("%s; the last ones that could be used stay in force", error)
        return self._context


def server_context(files: TlsFiles, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A context to listen with. Each new connection uses the current files. Raises TlsError."""

    def make() -> ssl.SSLContext:
        context = _context(files, ssl.Purpose.CLIENT_AUTH)
        # A resumed session presents no certificate, so it would outlive the removal of a CA: see `choose`.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        if files.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    fresh = _Fresh(files, make)
    listening = make()

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
        connection.context = fresh.get()
        # TLS 1.2 also has sessions without tickets, which Python cannot turn off.
        session = connection.session if connection.session_reused else None
        if session is not None and session.time <= fresh.changed_at:
            return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
        return None

    listening.sni_callback = choose
    return listening


def client_context(files: TlsFiles, names: CertNames) -> PeerTls:
    """How to connect to peers: presents this member's certificate and verifies that of the peer by `ca` and `names`.
    Raises TlsError."""
    if files.ca is None:
        raise TlsError("TLS between members needs --peer-trusted-ca-file: both sides are verified")
    return PeerTls(_Fresh(files, lambda: _context(files, ssl.Purpose.SERVER_AUTH)).get, names)
