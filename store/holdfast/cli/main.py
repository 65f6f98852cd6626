"""The `holdfast` command. Packages of the server or the operator are imported only by the commands that need them."""

from __future__ import annotations

import os

import typer

from holdfast import __version__
from holdfast.cli.cache import cache
from holdfast.cli.cluster import lease, member, status
from holdfast.cli.doctor import doctor
from holdfast.cli.edge import edge
from holdfast.cli.exec import exec_
from holdfast.cli.keys import delete, get, put, txn, watch
from holdfast.cli.operator import operator
from holdfast.cli.project import project
from holdfast.cli.serve import serve
from holdfast.cli.snapshot import snapshot

app = typer.Typer(
    name="holdfast",
    help="A Raft-replicated configuration store with edge replicas. It speaks the etcd v3 API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel="Keys")(put)
app.command(rich_help_panel="Keys")(get)
app.command("del", rich_help_panel="Keys")(delete)
app.command(rich_help_panel="Keys")(txn)
app.command(rich_help_panel="Keys")(watch)
app.command(rich_help_panel="Keys")(project)
app.command("exec", rich_help_panel="Keys")(exec_)
app.command(rich_help_panel="Cluster")(status)
app.add_typer(member, name="member", rich_help_panel="Cluster")
app.add_typer(lease, name="lease", rich_help_panel="Keys")
app.add_typer(cache, name="cache", rich_help_panel="Keys")
app.add_typer(snapshot, name="snapshot", rich_help_panel="Cluster")
app.command(rich_help_panel="Servers")(serve)
app.add_typer(edge, name="edge", rich_help_panel="Servers")
app.add_typer(operator, name="operator", rich_help_panel="Servers")
app.command(rich_help_panel="Servers")(doctor)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    # The gRPC library logs several lines a second while it cannot connect, which would hide the error printed here.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    app()
