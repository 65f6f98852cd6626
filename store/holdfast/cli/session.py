"""Connects a client by the options of a command, and turns its errors into one line and an exit code."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.status import for_people

Endpoints = Annotated[
    str, typer.Option("--endpoints", envvar="HOLDFAST_ENDPOINTS", help="Servers to connect to: HOST:PORT,HOST:PORT,…")
]
TlsDir = Annotated[
    Path | None,
    typer.Option(
        "--tls-dir", envvar="HOLDFAST_TLS_DIR", help="Directory with ca.crt and, for mutual TLS, tls.crt, tls.key."
    ),
]
User = Annotated[
    str,
    typer.Option(
        "--user",
        envvar="HOLDFAST_USER",
        help="User name. The password is read from HOLDFAST_PASSWORD or prompted for. NAME:PASSWORD also works, but "
        "other users of the machine can see it.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Time limit in seconds, including fail-over.")]
Output = Annotated[str, typer.Option("-o", "--output", help="Output format: table, json or simple (as etcdctl).")]
LOCAL = "127.0.0.1:2379"

# Exit codes: 1 refused, 2 wrong usage (from typer), 3 no server answered, 4 outcome unknown.
UNAVAILABLE, UNKNOWN = 3, 4


def run(
    endpoints: str,
    tls_dir: Path | None,
    user: str,
    timeout: float,
    work: Callable[[client.Client], Coroutine[Any, Any, None]],
) -> None:
    """Connect and run `work`; on an error, print one line and exit."""
    name, password = credentials(user)

    async def connected() -> None:
        tls = client.Tls.from_directory(tls_dir) if tls_dir else None
        async with client.connect(
            endpoints, tls=tls, timeout=timeout, session_ttl=0, user=name, password=password
        ) as hf:
            await work(hf)

    try:
        asyncio.run(connected())
    except client.OutcomeUnknown as error:
        fail(f"the write was sent and no answer came ({for_people(str(error))}); read before writing again", UNKNOWN)
    except client.Unavailable as error:
        asked = f" (asked: {endpoints}; set --endpoints or HOLDFAST_ENDPOINTS)" if error.known is None else ""
        fail(f"{error}{asked}", UNAVAILABLE)
    except client.Refused as error:
        fail(for_people(str(error)))
    except client.ClientError as error:  # of a file, or of keys that cannot be what the command makes of them
        fail(str(error))
    except BrokenPipeError:  # whoever reads the output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # as if SIGPIPE had ended it
    except (ValueError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def credentials(user: str) -> tuple[str, str]:
    """(name, password); both empty: no user."""
    name, given, password = user.partition(":")
    if not name or given:
        return name, password
    known = os.environ.get("HOLDFAST_PASSWORD")
    if known is not None:
        return name, known
    if not sys.stdin.isatty():
        fail(f"the password of {name} is not known: set HOLDFAST_PASSWORD", 2)
    return name, getpass.getpass(f"Password of {name}: ")


def check_output(output: str) -> None:
    if output not in ("table", "json", "simple"):
        fail(f"-o {output!r} is not table, json or simple", 2)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table that fits the terminal; plain columns, and nothing cut, if the output is not a terminal."""
    # Servers are started by the same program, and show no tables.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 1 << 24)
    grid = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        grid.add_row(*(Text(str(cell)) for cell in row))  # a name in brackets is no style
    console.print(grid)


def as_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2 if sys.stdout.isatty() else None)
    print()


def text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
