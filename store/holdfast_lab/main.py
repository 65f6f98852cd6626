"""The commands of the laboratory: `python -m holdfast_lab demo|sim|crashtest|handovers|swaps|staleness|powercuts|…`."""

from __future__ import annotations

import os

import typer

from holdfast_lab import demo
from holdfast_lab.cells.bank.command import cells_bank
from holdfast_lab.cells.command import cells
from holdfast_lab.cells.handoffs.command import cells_handoffs
from holdfast_lab.cells.replications.command import cells_replication
from holdfast_lab.crash.command import crashtest
from holdfast_lab.handovers.command import handovers
from holdfast_lab.powercuts.command import powercuts
from holdfast_lab.sim.command import sim
from holdfast_lab.staleness.command import staleness
from holdfast_lab.swaps import swaps

app = typer.Typer(
    name="python -m holdfast_lab",
    help="Proves holdfast and shows it. For those who work on it; run from a checkout.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.run)
app.command()(sim)
app.command()(crashtest)
app.command()(handovers)
app.command()(swaps)
app.command()(staleness)
app.command()(powercuts)
app.command()(cells)
app.command()(cells_bank)
app.command()(cells_handoffs)
app.command()(cells_replication)


def main() -> None:
    # gRPC's library logs several lines a second while it cannot connect, which would hide the error that we print.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    app()
