"""`holdfast cells replicate`: copies a prefix from one cell to another, as it changes."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cells import Cells
from holdfast.cli.cells_reach import CellOption, CellTls, places, run, until_signal
from holdfast.cli.cells_told import Told
from holdfast.cli.errors import fail
from holdfast.cli.session import Timeout, TlsDir, User

Source = Annotated[str, typer.Argument(metavar="SRC", help="The cell whose keys are copied.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="The cell that gets them.")]
Prefix = Annotated[str, typer.Argument(help="Which keys, for example /global/.")]
Forget = Annotated[
    bool, typer.Option("--forget", help="Do not copy: let DST have these keys for itself, or from another cell.")
]


def replicate(
    source: Source,
    destination: Destination,
    prefix: Prefix,
    forget: Forget = False,
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Copy the keys with this prefix from SRC to DST, until SIGINT or SIGTERM. Any number of processes may do this.
    Exit code 1 if it must not be done: SRC has them from DST, or DST has them from elsewhere."""
    known = places(cell, cell_tls, tls_dir, source, destination)

    async def work(them: Cells) -> None:
        try:
            copied = them.replication(source, destination, prefix)
        except ValueError as error:
            fail(str(error), 2)
        if forget:
            print("forgotten; the keys are still there" if await copied.forget() else "nothing was known of it")
            return
        told = Told(f"{prefix} from {source} to {destination}", "copied")
        try:
            await until_signal(copied.run(told))
        finally:
            told.close()

    run(known, user, timeout, work)
