"""`holdfast cells queue`: sends messages from one cell to another, and delivers them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cells import Cells, Message, Queue
from holdfast.cli.cells_form import lines_of, message
from holdfast.cli.cells_reach import CellOption, CellTls, places, run, until_signal
from holdfast.cli.cells_text import TextFile, parsed
from holdfast.cli.cells_told import Told
from holdfast.cli.session import Output, Timeout, TlsDir, User, as_json, check_output, table, text

queue = typer.Typer(help="Messages that are carried out in another cell, in order and once.", no_args_is_help=True)
Source = Annotated[str, typer.Argument(metavar="SRC", help="The cell in which messages are sent.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="The cell in which they are carried out.")]


@queue.command("lag")
def lag(
    source: Source,
    destination: Destination,
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Show how many messages were sent, have arrived, and wait, as the source knows."""
    check_output(output)
    known = places(cell, cell_tls, tls_dir, source, destination)

    async def work(them: Cells) -> None:
        found = await them.queue(source, destination).lag()
        if output == "json":
            as_json({"sent": found.sent, "arrived": found.arrived, "waiting": found.waiting})
        else:
            table(["SENT", "ARRIVED", "WAITING"], [[found.sent, found.arrived, found.waiting]])

    run(known, user, timeout, work)


@queue.command("send")
def send(
    source: Source,
    destination: Destination,
    file: TextFile = Path("-"),
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Send a message, and print its number. The text is as for `cells txn`, without `at`."""
    known = places(cell, cell_tls, tls_dir, source, destination)
    wanted = parsed(file, message)

    async def work(them: Cells) -> None:
        print(f"message {await them.queue(source, destination).send(wanted)} sent")

    run(known, user, timeout, work)


@queue.command("run")
def run_(
    source: Source,
    destination: Destination,
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Deliver what is sent, until SIGINT or SIGTERM. Any number of processes may do this."""
    known = places(cell, cell_tls, tls_dir, source, destination)

    async def work(them: Cells) -> None:
        await _deliver(them.queue(source, destination), f"{source} to {destination}")

    run(known, user, timeout, work)


async def _deliver(queue: Queue, name: str) -> None:
    told = Told(name, "delivered")
    await until_signal(queue.run(told))
    told.close()


@queue.command("refused")
def refused(
    source: Source,
    destination: Destination,
    cell: CellOption = None,
    cell_tls: CellTls = None,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
    output: Output = "table",
) -> None:
    """Show the messages that were put aside at the destination, because their compares did not hold."""
    check_output(output)
    known = places(cell, cell_tls, tls_dir, source, destination)

    async def work(them: Cells) -> None:
        found = [each async for each in them.queue(source, destination).refused()]
        if output == "json":
            as_json([{"number": number, "lines": lines_of(message)} for number, message in found])
        else:
            for number, message in found:
                _print(number, message)

    run(known, user, timeout, work)


def _print(number: int, message: Message) -> None:
    print(f"# message {number}")
    for line in lines_of(message):
        print(text(os.fsencode(line)))
