"""`holdfast cache`: which prefixes clients may cache consistently."""

from __future__ import annotations

import base64
import os

import typer

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.session import (
    LOCAL,
    Endpoints,
    Output,
    Timeout,
    TlsDir,
    User,
    as_json,
    check_output,
    run,
    table,
    text,
)

cache = typer.Typer(
    help="Declare which prefixes clients may cache consistently: writes of their keys, and forbid, wait until all such "
    "caches have let go of them, or for 2.2 s at most.",
    no_args_is_help=True,
)


@cache.command("allow")
def allow(
    prefix: str,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Declare that clients may cache the keys with this prefix consistently."""

    async def work(hf: client.Client) -> None:
        changed = await hf.allow_caching(os.fsencode(prefix))
        print(f"{prefix} is cachable" + ("" if changed else " already"))

    run(endpoints, tls_dir, user, timeout, work)


@cache.command("forbid")
def forbid(
    prefix: str,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Take the declaration of a prefix back. Exit code 1 if there is none."""

    async def work(hf: client.Client) -> None:
        if not await hf.forbid_caching(os.fsencode(prefix)):
            fail(f"{prefix} is not declared as cachable")
        print(f"{prefix} is not cachable any more")

    run(endpoints, tls_dir, user, timeout, work)


@cache.command("list")
def list_(
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Show the declared prefixes."""
    check_output(output)

    async def work(hf: client.Client) -> None:
        prefixes = await hf.cachable()
        if output == "json":
            as_json([{"prefix": base64.b64encode(prefix).decode()} for prefix in prefixes])
        elif output == "simple":
            for prefix in prefixes:
                print(text(prefix))
        else:
            table(["PREFIX"], [[text(prefix)] for prefix in prefixes])

    run(endpoints, tls_dir, user, timeout, work)
