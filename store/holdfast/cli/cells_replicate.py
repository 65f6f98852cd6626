"""`holdfast cells replicate`: keeps a prefix of one cell equal to that of another one."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from holdfast.cells import Cells, Replication
from holdfast.cells.replication_record import check_prefix
from holdfast.cli.cells_reach import CellOption, CellTls, places, run, until_signal
from holdfast.cli.cells_told import Told
from holdfast.cli.errors import fail
from holdfast.cli.session import Timeout, TlsDir, User


def replicate(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The cell whose keys are replicated.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The cell that they are written to.")],
    prefix: Annotated[str, typer.Argument(help="All keys that begin with it.")],
    forget: Annotated[
        bool, typer.Option("--forget", help="End the replication: the keys stay, and may come from elsewhere then.")
    ] = False,
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Replicate all keys with a prefix from one cell to another, until SIGINT or SIGTERM.

    Keys with the prefix that the source does not have are deleted at the destination. Any number of processes may do
    this. Stop them before --forget: else they begin again.
    """
    wanted = os.fsencode(prefix)
    try:
        check_prefix(wanted)
    except ValueError as error:
        fail(str(error), 2)
    known = places(cell, cell_tls, tls_dir, source, destination)

    async def work(them: Cells) -> None:
        replication = them.replication(source, destination, wanted)
        name = f"{prefix} from {source} to {destination}"
        if forget:
            ended = await replication.forget()
            print(f"{name} is not replicated any more" if ended else f"{name} was not replicated")
        else:
            await _run(replication, name)

    run(known, user, timeout, work)


async def _run(replication: Replication, name: str) -> None:
    told = Told(name, "written")
    try:
        await until_signal(replication.run(told))
    finally:
        told.close()
