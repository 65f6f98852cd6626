"""Connects to the cells that the options of `holdfast cells` name, and turns errors into one line and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast import cells, client
from holdfast.cli.errors import fail
from holdfast.cli.session import UNAVAILABLE, UNKNOWN, credentials
from holdfast.client.connection import Tls
from holdfast.client.endpoints import parse
from holdfast.status import for_people

CellOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cell",
        envvar="HOLDFAST_CELLS",
        help="A cell and its servers: NAME=HOST:PORT,HOST:PORT,… Give it once for each cell; spaces separate them in "
        "the variable.",
    ),
]
CellTls = Annotated[
    list[str] | None,
    typer.Option(
        "--cell-tls",
        envvar="HOLDFAST_CELLS_TLS",
        help="As --tls-dir, for one cell: NAME=DIR. May be given several times; spaces separate them in the variable.",
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """How a cell is reached."""

    endpoints: str
    tls: Tls | None = None


def places(
    cell: Sequence[str] | None, cell_tls: Sequence[str] | None, tls_dir: Path | None, *named: str
) -> dict[str, Place]:
    """The cells, by name. Exits if an option is wrong, or if one of the `named` cells is none of them."""
    try:
        known = parse_places(cell or (), cell_tls or (), tls_dir)
    except ValueError as error:
        fail(str(error), 2)
    for name in named:
        if name not in known:
            fail(f"{name} is no cell; there are {', '.join(known)}", 2)
    return known


def parse_places(cells: Sequence[str], cell_tls: Sequence[str], tls_dir: Path | None) -> dict[str, Place]:
    """Raises ValueError."""
    if not cells:
        raise ValueError("no cell is given: give --cell NAME=HOST:PORT,… for each, or set HOLDFAST_CELLS")
    endpoints = _pairs("--cell", "NAME=HOST:PORT,…", cells)
    directories = _pairs("--cell-tls", "NAME=DIR", cell_tls)
    unknown = sorted(directories.keys() - endpoints.keys())
    if unknown:
        raise ValueError(f"--cell-tls {unknown[0]}: there is no such cell; there are {', '.join(endpoints)}")
    found = {}
    for name, where in endpoints.items():
        directory = directories.get(name, tls_dir)
        tls = Tls.from_directory(directory) if directory else None
        try:
            parse(where, tls)
        except ValueError as error:
            raise ValueError(f"--cell {name}: {error}") from None
        found[name] = Place(where, tls)
    return found


def _pairs(option: str, form: str, words: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not value or not name or any(c == "/" or c.isspace() for c in name):
            raise ValueError(f"{option} {word!r} is not {form}, with a name that has no slash and no space")
        if name in pairs:
            raise ValueError(f"{option} names {name} twice")
        pairs[name] = value
    return pairs


def run(
    known: dict[str, Place],
    user: str,
    timeout: float,
    work: Callable[[cells.Cells], Coroutine[Any, Any, None]],
) -> None:
    """Connect to the cells and run `work`; on an error, print one line and exit."""
    name, password = credentials(user)

    async def connected() -> None:
        clients = {
            cell: client.connect(
                place.endpoints, tls=place.tls, timeout=timeout, session_ttl=0, user=name, password=password
            )
            for cell, place in known.items()
        }
        async with cells.connect(clients, timeout=timeout) as them:
            await work(them)

    try:
        asyncio.run(connected())
    except client.OutcomeUnknown as error:
        fail(f"it cannot be said whether it was done ({one_line(error)}); look before trying again", UNKNOWN)
    except BrokenPipeError:  # whoever reads the output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # as if SIGPIPE had ended it
    except (client.Unavailable, cells.CellsUnavailable) as error:
        fail(one_line(error), UNAVAILABLE)
    except (client.ClientError, ValueError, OSError) as error:
        fail(one_line(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Do this until SIGINT or SIGTERM."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def one_line(error: object) -> str:
    """The text of an error, which the network may have made several lines of."""
    return " ".join(for_people(str(error)).split())
