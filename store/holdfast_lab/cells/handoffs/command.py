"""The command `cells-handoffs`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.cells.clusters import kept
from holdfast_lab.cells.handoffs.run import Plan, run_handoffs
from holdfast_lab.sim.violation import Violation


def cells_handoffs(
    messages: Annotated[int, typer.Option(min=1, help="How many.")] = 1_000_000,
    kill: Annotated[bool, typer.Option(help="Kill senders, couriers, voters and whole clusters meanwhile.")] = False,
    voters: Annotated[int, typer.Option(min=1, max=5, help="How many in each cluster.")] = 3,
    senders: Annotated[int, typer.Option(min=1, help="How many processes send.")] = 2,
    couriers: Annotated[int, typer.Option(min=1, help="How many processes deliver.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; their effect is not repeatable.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Leave logs and data in this directory.")] = None,
) -> None:
    """Hand messages over from one cluster to another, and check that each is carried out once and in order.

    All that is written in the destination is watched from the first revision on; both clusters are compacted meanwhile.
    """
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, {messages:,} messages from {time.strftime('%H:%M:%S')}", flush=True)
    with kept(keep, "holdfast-handoffs-") as directory:
        try:
            report = asyncio.run(run_handoffs(Plan(messages, kill, voters, senders, couriers, chosen), directory))
        except Violation as violation:
            fail(f"{violation}\n(seed {chosen})")
    print(report)
    print("each message was carried out once, in the order of its sender, and none is left")
