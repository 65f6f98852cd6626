"""The command `cells-replication`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.cells.clusters import kept
from holdfast_lab.cells.replications.run import Plan, run_replications
from holdfast_lab.cells.torment import faults_text
from holdfast_lab.sim.violation import Violation


def cells_replication(
    keys: Annotated[int, typer.Option(min=0, help="How many are there before.")] = 10_000,
    transactions: Annotated[int, typer.Option(min=1, help="Written as fast as it goes, two keys in each.")] = 10_000,
    size: Annotated[int, typer.Option(min=50, max=1_000_000, help="Bytes of a value.")] = 1000,
    rate: Annotated[int, typer.Option(min=1, help="Transactions a second while delays are measured.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="For which delays are measured.")] = 20.0,
    kill: Annotated[bool, typer.Option(help="Kill replicators, voters and whole clusters meanwhile.")] = False,
    voters: Annotated[int, typer.Option(min=1, max=5, help="How many in each of three clusters.")] = 3,
    replicators: Annotated[int, typer.Option(min=1, help="How many processes replicate.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; their effect is not repeatable.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Leave logs and data in this directory.")] = None,
) -> None:
    """Replicate a prefix along a chain of three clusters, and check that no transaction is torn and none applied twice.

    All that is written at the destinations is watched from the first revision on.
    """
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, from {time.strftime('%H:%M:%S')}", flush=True)
    plan = Plan(keys, transactions, size, rate, seconds, kill, voters, replicators=replicators, seed=chosen)
    with kept(keep, "holdfast-replication-") as directory:
        try:
            report = asyncio.run(run_replications(plan, directory))
        except Violation as violation:
            fail(f"{violation}\n(seed {chosen})")
    print(faults_text(report.faults))
    print("no transaction was torn, none was applied twice, and the clusters are equal")
