"""The command `staleness`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.sim.violation import Violation
from holdfast_lab.staleness.run import staleness_test


def staleness(
    reads: Annotated[int, typer.Option(min=1, help="How many answered reads.")] = 100_000,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; their effect is not repeatable.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Leave the servers' logs and data in this directory.")] = None,
) -> None:
    """Read at real replicas, also below each other, and check that no answer is older than it says or than was asked.

    Meanwhile members, also the leader, and replicas are frozen, replicas are killed, and connections cut, silent or
    slow. The wall clock is not changed: it is that of the whole machine.
    """
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, {reads:,} reads from {time.strftime('%H:%M:%S')}", flush=True)
    try:
        report = asyncio.run(staleness_test(reads, chosen, keep))
    except Violation as violation:
        fail(f"{violation}\n(seed {chosen})")
    print(report)
    print("0 violations: no answer was older than it said or than was asked, none went back")
