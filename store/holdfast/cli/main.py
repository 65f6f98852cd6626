"""The `holdfast` command. What needs the server's or the operator's packages is imported only when it is called."""

from __future__ import annotations

import typer

from holdfast import __version__
from holdfast.cli.serve import serve

app = typer.Typer(
    name="holdfast",
    help="A Raft-replicated configuration store with edge replicas. It speaks the etcd v3 API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(serve)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    app()
