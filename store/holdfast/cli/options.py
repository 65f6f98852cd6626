"""Options that `holdfast serve` and `holdfast edge` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
