"""`holdfast cells change`, `readmit` and `janitor`: which clusters are the cells, and what is cleared away in them."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from holdfast.cells import Cells
from holdfast.cli.cells_reach import CellOption, CellTls, places, run, until_signal
from holdfast.cli.cells_status import set_line
from holdfast.cli.session import Timeout, TlsDir, User


def change(
    names: Annotated[list[str], typer.Argument(help="All cells that are to be the set.", metavar="NAME…")],
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Add cells to the set, or remove some. Give --cell for those before and those after.

    Those that are added have to answer, and a majority before and after. It may be repeated after a failure.
    """
    known = places(cell, cell_tls, tls_dir, *names)

    async def work(them: Cells) -> None:
        print(f"the cells are: {set_line(await them.change_set(set(names)))}")

    run(known, user, timeout, work)


def readmit(
    name: Annotated[str, typer.Argument(help="The cell whose cluster was restored.")],
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Take in a cell again whose cluster was restored from a snapshot. The others have to be a majority without it."""
    known = places(cell, cell_tls, tls_dir, name)

    async def work(them: Cells) -> None:
        lost = await them.readmit(name)
        print(f"{name} counts again")
        for source, count in lost.items():
            print(f"{count} messages from {source} had been carried out there and were lost with the restore")

    run(known, user, timeout, work)


def janitor(
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """End transactions that nobody ends, and remove what is over, until SIGINT or SIGTERM. Run it in a process or two.

    Nothing is removed while one of the cells does not answer.
    """
    known = places(cell, cell_tls, tls_dir)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)

    async def work(them: Cells) -> None:
        await until_signal(them.janitor().run())

    run(known, user, timeout, work)
