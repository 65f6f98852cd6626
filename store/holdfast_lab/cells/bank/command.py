"""The command `cells-bank`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.cells.bank.homeless import stop_at_each_step
from holdfast_lab.cells.bank.run import Plan, run_bank
from holdfast_lab.cells.clusters import NAMES, kept
from holdfast_lab.sim.violation import Violation


def cells_bank(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
    cells: Annotated[int, typer.Option(min=3, max=len(NAMES), help="How many clusters.")] = 3,
    voters: Annotated[int, typer.Option(min=1, max=5, help="How many in each cluster.")] = 3,
    accounts: Annotated[int, typer.Option(min=4, help="How many, spread over the cells.")] = 30,
    workers: Annotated[int, typer.Option(min=1, help="How many processes move money.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; their effect is not repeatable.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Leave logs and data in this directory.")] = None,
    coordinator_steps: Annotated[
        bool,
        typer.Option(
            help="Instead: kill a coordinator at each step, and then the cell that it was in. How long do others wait?"
        ),
    ] = False,
) -> None:
    """Move money between accounts in several clusters, while coordinators, janitors, voters and whole clusters
    are killed.

    Every minute the work stops, and what is open is resolved: no intent may be left, the sum of all accounts must be
    what it was, each transfer is made whole or not at all, and as its coordinator was told.
    """
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, {cells} cells of {voters} voters, from {time.strftime('%H:%M:%S')}", flush=True)
    with kept(keep, "holdfast-bank-") as directory:
        try:
            if coordinator_steps:
                asyncio.run(stop_at_each_step(directory, cells, voters))
                return
            report = asyncio.run(run_bank(Plan(minutes * 60, cells, voters, accounts, workers, chosen), directory))
        except Violation as violation:
            fail(f"{violation}\n(seed {chosen})")
    print(report)
    print("the sum of all accounts stayed, no intent was left, each transfer was made whole or not at all")
