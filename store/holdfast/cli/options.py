"""Options that several commands share."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.errors import fail

ListenClientUrls = Annotated[str, typer.Option(help="Addresses to listen on for clients: URL,URL,…")]
ListenMetricsUrls = Annotated[
    str, typer.Option(help="Additional addresses for /livez, /readyz and /metrics without TLS. Default: none.")
]
CertFile = Annotated[Path | None, typer.Option(help="Certificate (PEM) to present to clients; needed for https URLs.")]
KeyFile = Annotated[Path | None, typer.Option(help="Private key (PEM) of --cert-file.")]
TrustedCaFile = Annotated[
    Path | None, typer.Option(help="CA (PEM) of client certificates. If set, clients must present a certificate.")
]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]
FlagsPrefix = Annotated[
    str,
    typer.Option(
        help="Where feature flags are, for OpenFeature providers that send no selector: a prefix ending in / with one "
        "flag in each key, or a key with a whole flagd document."
    ),
]


def signal_number(name: str) -> int:
    """The number of the signal of --signal, such as HUP or SIGHUP."""
    try:
        return int(signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"])
    except KeyError:
        fail(f"--signal={name}: there is no such signal")
