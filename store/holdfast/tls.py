"""TLS from files, read again when they change: certificates are rotated under a running server.

Every context is made from the files as they are when somebody connects (looked at once a second at most). Files that
cannot be used, half-written ones for example, leave the last good ones in force, and a line in the log.
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
class Dialling:
    """How to connect to a peer: `context` gives the one to connect with now, `names` say whose certificate it shows."""

    context: Callable[[], ssl.SSLContext]
    names: CertNames


class TlsError(Exception):
    """The files cannot be used; one line that says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. `ca` verifies the other side: where it is given, who connects must show a certificate signed by it."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2

    @property
    def given(self) -> bool:
        return self.certificate is not None or self.key is not None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when one of the files does. Raises OSError."""
        paths = [path for path in (self.certificate, self.key, self.ca) if path is not None]
        stats = [path.stat() for path in paths]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _context(files: TlsFiles, purpose: ssl.Purpose) -> ssl.SSLContext:
    if files.certificate is None or files.key is None:
        raise TlsError("TLS needs both a certificate and a key file")
    try:
        context = ssl.create_default_context(purpose, cafile=None if files.ca is None else str(files.ca))
        context.load_cert_chain(str(files.certificate), str(files.key))
    except OSError as error:  # ssl.SSLError is one
        shown = ", ".join(str(path) for path in (files.certificate, files.key, files.ca) if path is not None)
        raise TlsError(f"cannot use the TLS files {shown}: {error}") from error
    context.minimum_version = files.minimum
    # From Python 3.13 on the default also refuses certificates that lack what RFC 5280 asks of an issuer (the key's
    # identifier, for one). Go takes them, so etcd does, and many a private CA makes them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class _Fresh:
    """The newest context that could be made of the files."""

    def __init__(self, files: TlsFiles, make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._stamp = self._look()
        self._context = make()
        self._looked_at = time.monotonic()
        self.changed_at = 0.0  # by the wall clock, as sessions have it

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
    """A context to listen with; each connection is served by the files as they are then. Raises TlsError."""

    def make() -> ssl.SSLContext:
        context = _context(files, ssl.Purpose.CLIENT_AUTH)
        # Who resumes a session shows no certificate, so a session would outlive a CA that was taken away: see `choose`.
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
        # TLS 1.2 has sessions without tickets, too, which cannot be turned off from here.
        session = connection.session if connection.session_reused else None
        if session is not None and session.time <= fresh.changed_at:
            return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
        return None

    listening.sni_callback = choose
    return listening


def client_context(files: TlsFiles, names: CertNames) -> Dialling:
    """Shows our certificate, verifies the other side's by `ca` and by `names`. Raises TlsError."""
    if files.ca is None:
        raise TlsError("TLS between members needs --peer-trusted-ca-file: both sides are verified")
    return Dialling(_Fresh(files, lambda: _context(files, ssl.Purpose.SERVER_AUTH)).get, names)
