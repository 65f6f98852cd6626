"""Why a connection could not be made, in words that say what to do.

gRPC tells the cause only as the text of a call that failed. It names the address, and is about gRPC's own parts."""

from __future__ import annotations

import re

# What gRPC's text has in it, and what it means: for whom uses TLS, and for whom does not.
_REFUSED = "connection refused: is it running?"
_ENDED_TLS = "it ended the connection: does it serve TLS, and want a certificate of yours?"
_ENDED = "it ended the connection: does it serve TLS only?"
_CAUSES = (
    ("Connection refused", _REFUSED, _REFUSED),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate was not issued by this CA, or is not valid now", ""),
    ("Hostname Verification Check failed", "its certificate is for another name", ""),
    ("WRONG_VERSION_NUMBER", "it does not serve TLS there", ""),
    ("Failed to create security handshaker", "the files of TLS here are no certificates, or no pair", ""),
    ("handshaker shutdown", "no answer yet", "no answer yet"),
    ("handshake failed", "the TLS handshake failed: do both sides have certificates of the same CA?", ""),
    ("Connection reset", _ENDED_TLS, _ENDED),
    ("Endpoint closing", _ENDED_TLS, _ENDED),
    ("Socket closed", _ENDED_TLS, _ENDED),
    ("Broken pipe", _ENDED_TLS, _ENDED),
    ("Failed parsing HTTP/2", "it does not speak gRPC there", "it does not speak gRPC there without TLS"),
)
# "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: …"
_ABOUT = re.compile(r"^.*last error: [A-Z_]+: (?:ipv[46]:\S+: )?(?:Failed to connect to remote host: )?")


def cause(details: str, *, tls: bool) -> str:
    """`details`: of the error of a call that found no connection."""
    for sign, with_tls, without in _CAUSES:
        if sign in details and (with_tls if tls else without):
            return with_tls if tls else without
    return _ABOUT.sub("", details).strip() or "the connection failed"
