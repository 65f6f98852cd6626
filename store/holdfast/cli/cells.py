"""`holdfast cells`: sets cells up, shows how they are, and changes registers and keys of several cells."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cells import Cells, Survey
from holdfast.cli import cells_status
from holdfast.cli.cells_form import transaction
from holdfast.cli.cells_queue import queue
from holdfast.cli.cells_reach import CellOption, CellTls, places, run
from holdfast.cli.cells_replicate import replicate
from holdfast.cli.cells_set import change, janitor, readmit
from holdfast.cli.cells_text import TextFile, parsed
from holdfast.cli.errors import fail
from holdfast.cli.session import Output, Timeout, TlsDir, User, check_output

cells = typer.Typer(
    help="Agreement between clusters: each of them is a cell. The cells are given by --cell or HOLDFAST_CELLS.",
    no_args_is_help=True,
)
register = typer.Typer(help="Read and change values that the cells keep together.", no_args_is_help=True)
cells.add_typer(register, name="register")
cells.add_typer(queue, name="queue")
cells.command("change")(change)
cells.command("readmit")(readmit)
cells.command("janitor")(janitor)
cells.command("replicate")(replicate)


@cells.command("init")
def init(
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Make these clusters a set of cells, once. All of them have to answer; it may be repeated after a failure."""

    async def work(them: Cells) -> None:
        print(f"the cells are set up: {cells_status.set_line(await them.set_up())}")

    run(places(cell, cell_tls, tls_dir), user, timeout, work)


@cells.command("status")
def status(
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 5.0,
    output: Output = "table",
) -> None:
    """Show each cell, open transactions, queues and replications. Exit code 1 if too few cells answer for a quorum."""
    check_output(output)
    found: list[Survey] = []

    async def work(them: Cells) -> None:
        found.append(await them.survey())
        cells_status.show(found[0], output)

    run(places(cell, cell_tls, tls_dir), user, timeout, work)
    if not found[0].quorum:
        fail(cells_status.why_no_quorum(found[0]))


@register.command("get")
def register_get(
    name: Annotated[str, typer.Argument(help="Name of the register.")],
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Print the value of a register. Exit code 1 if it has none."""
    found: list[bytes | None] = []

    async def work(them: Cells) -> None:
        found.append(await them.register(name).read())

    run(places(cell, cell_tls, tls_dir), user, timeout, work)
    if found[0] is None:
        fail(f"the register {name} has no value")
    _print(found[0])


@register.command("set")
def register_set(
    name: Annotated[str, typer.Argument(help="Name of the register.")],
    value: Annotated[str, typer.Argument(help="The value; - reads it from standard input.")],
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if the register has no value.")] = False,
    if_: Annotated[
        str | None, typer.Option("--if", metavar="VALUE", help="Only if the register has this value.")
    ] = None,
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Set a register, and print the value that is there afterwards. Exit code 1 if the condition did not hold."""
    if if_absent and if_ is not None:
        fail("--if-absent and --if exclude each other", 2)
    known = places(cell, cell_tls, tls_dir)
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    expected = None if if_ is None else os.fsencode(if_)
    held = True

    def change(before: bytes | None) -> bytes | None:
        """It may be called several times; the last call is the one that counts."""
        nonlocal held
        held = (not if_absent or before is None) and (expected is None or before == expected)
        return data if held else None

    found: list[bytes | None] = []

    async def work(them: Cells) -> None:
        found.append(await them.register(name).change(change))

    run(known, user, timeout, work)
    if found[0] is not None:
        _print(found[0])
    if not held:
        fail(f"the register {name} was not set: {'it has a value' if if_absent else 'it has another value'}")


def _print(value: bytes) -> None:
    """With its bytes unchanged."""
    sys.stdout.flush()
    sys.stdout.buffer.write(value + b"\n")
    sys.stdout.buffer.flush()


@cells.command("txn")
def txn(
    file: TextFile = Path("-"),
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Change keys of several cells, all or none. Exit code 1 if it was not done.

    Each line of the text is one of these: `at CELL` (the next lines are about its keys), `if KEY = VALUE`,
    `if KEY absent`, `if KEY exists`, `put KEY VALUE`, `delete KEY`. Words are quoted as in a shell; # begins a comment.
    """
    known = places(cell, cell_tls, tls_dir)
    parts = parsed(file, lambda text: transaction(text, known))

    async def work(them: Cells) -> None:
        txn = them.txn()
        for name, part in parts.items():
            txn.at(name).if_(*part.compares).then(*part.writes)
        done = await txn.commit()
        print("committed" if done.succeeded else f"not done: a compare at {done.differs} does not hold")
        if not done.succeeded:
            raise SystemExit(1)

    run(known, user, timeout, work)
