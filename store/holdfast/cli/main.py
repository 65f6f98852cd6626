"""The `holdfast` command.

Each command is in a module of its own, and only the one that is called is imported: a replica at the edge that is
started again answers its first read a quarter of a second sooner. A command imports the packages of the server or the
operator itself, if it needs them.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NamedTuple

import typer

from holdfast import __version__


class Command(NamedTuple):
    name: str
    module: str  # below holdfast.cli
    attribute: str  # of the module: a function, or a Typer with commands of its own
    panel: str  # of the help


COMMANDS = (
    Command("put", "keys", "put", "Keys"),
    Command("get", "keys", "get", "Keys"),
    Command("del", "keys", "delete", "Keys"),
    Command("txn", "keys", "txn", "Keys"),
    Command("watch", "keys", "watch", "Keys"),
    Command("project", "project", "project", "Keys"),
    Command("exec", "exec", "exec_", "Keys"),
    Command("lease", "cluster", "lease", "Keys"),
    Command("cache", "cache", "cache", "Keys"),
    Command("status", "cluster", "status", "Cluster"),
    Command("member", "cluster", "member", "Cluster"),
    Command("snapshot", "snapshot", "snapshot", "Cluster"),
    Command("cells", "cells", "cells", "Between clusters"),
    Command("serve", "serve", "serve", "Servers"),
    Command("edge", "edge", "edge", "Servers"),
    Command("operator", "operator", "operator", "Servers"),
    Command("doctor", "doctor", "doctor", "Servers"),
)


def command_line(wanted: str = "") -> typer.Typer:
    """The command `wanted` alone; with all others if there is none of this name."""
    app = typer.Typer(
        name="holdfast",
        help="A Raft-replicated configuration store with edge replicas. It speaks the etcd v3 API.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_no_options)
    for command in [c for c in COMMANDS if c.name == wanted] or COMMANDS:
        found = getattr(import_module(f"holdfast.cli.{command.module}"), command.attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=command.name, rich_help_panel=command.panel)
        else:
            app.command(command.name, rich_help_panel=command.panel)(found)
    app.command()(version)
    return app


def _no_options() -> None:
    """With it, typer asks for the name of a command also if there is only one."""


def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    # The gRPC library logs several lines a second while it cannot connect, which would hide the error printed here.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    command_line(sys.argv[1] if len(sys.argv) > 1 else "")()
