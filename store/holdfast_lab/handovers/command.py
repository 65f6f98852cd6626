"""The command `handovers`."""

from __future__ import annotations

import asyncio
import time
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.handovers.run import hand_over
from holdfast_lab.sim.violation import Violation


def handovers(
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; their effect is not repeatable.")] = None,
) -> None:
    """Hand a lock over between real processes that are frozen (SIGSTOP) and killed, on servers that are killed.

    Checks that what the lock protects accepts no smaller token, that nobody believes to hold the lock after another one
    has been given it, and that nobody enters within the lock-delay of a holder that was lost.
    """
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    began = time.monotonic()
    try:
        judge = asyncio.run(hand_over(count, chosen))
    except Violation as violation:
        fail(f"{violation}\n(seed {chosen})")
    print(f"{judge.handovers} hand-overs in {time.monotonic() - began:.0f} s, seed {chosen}: {dict(judge.counts)}")
    print("no smaller token was accepted, nobody entered while another one held or within the lock-delay")
