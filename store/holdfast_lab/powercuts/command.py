"""The command `powercuts`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.crash.powercut import CannotBuild
from holdfast_lab.powercuts.run import cut_again_and_again
from holdfast_lab.sim.violation import Violation


def powercuts(
    count: Annotated[int, typer.Option(min=1, help="How many power cuts.")] = 1000,
    seed: Annotated[int | None, typer.Option(help="Chooses the moments; their effect is not repeatable.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Leave logs and data in this directory.")] = None,
) -> None:
    """Cut the power of replicas at any moment, start them again without a network, and check what they show.

    A replica has to start, and to show each key as the cluster had it at the revision that it says, transactions whole.
    Once the network is back it has to catch up. Needs a C compiler.
    """
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, {count:,} power cuts from {time.strftime('%H:%M:%S')}", flush=True)
    try:
        report = asyncio.run(cut_again_and_again(count, chosen, keep))
    except CannotBuild as error:
        fail(str(error).replace(", or run without --power-cuts", ""))
    except Violation as violation:
        fail(f"{violation}\n(seed {chosen})")
    print(report)
    print("each replica started again, and all that it showed was right at its revision")
