"""`holdfast edge report`: reports something of this node, through its replica."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.session import LOCAL, Endpoints, Timeout, TlsDir, User, run


def report(
    key: Annotated[str, typer.Argument(help="What it is about. The cluster has it under /reported/REPLICA/KEY.")],
    value: Annotated[str | None, typer.Argument(help="What is so.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Report nothing under this key any more.")] = False,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 5.0,
) -> None:
    """Report something of this node. Its replica keeps it until the cluster has it, also while it is cut off."""
    if (value is None) != delete:
        fail("give a value, or --delete", 2)

    async def work(hf: client.Client) -> None:
        await hf.report(key, value)

    run(endpoints, tls_dir, user, timeout, work)
