"""The command `crashtest`: real servers under load, killed, frozen, cut off, out of room and without power."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from holdfast.cli.errors import fail

from holdfast_lab.crash.absence import absences as measure_absences
from holdfast_lab.crash.islands import NoNamespaces
from holdfast_lab.crash.powercut import CannotBuild
from holdfast_lab.crash.run import crash_test
from holdfast_lab.sim.violation import Violation


def crashtest(
    seconds: Annotated[float, typer.Option(help="How long.")] = 60.0,
    members: Annotated[int, typer.Option(min=1, max=7, help="How many servers.")] = 3,
    seed: Annotated[int | None, typer.Option(help="Chooses the faults; their effect is not repeatable.")] = None,
    power_cuts: Annotated[bool, typer.Option(help="Also cut the power; needs a C compiler.")] = True,
    keep: Annotated[Path | None, typer.Option(help="Leave the servers' logs and data in this directory.")] = None,
    absences: Annotated[
        int,
        typer.Option(min=0, help="Instead: so many rounds of each way for a member to be away; how long to catch up?"),
    ] = 0,
    away: Annotated[list[str] | None, typer.Option(help="With --absences: this way only. Repeatable.")] = None,
) -> None:
    """Run real servers on loopback under load and faults, and check all that they answered.

    No acknowledged write may be lost, no linearizable read stale, no watch have a gap. Full disks need root, because
    each server gets a small file system of its own; without it they are left out.
    """
    if absences:
        try:
            raise typer.Exit(measure_absences(absences, away or [], keep))
        except NoNamespaces as error:
            fail(f"{error}; network namespaces need root")
    sys.setrecursionlimit(1_000_000)  # the search recurses once for each write of unknown outcome
    chosen = SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {chosen}, {members} servers, {seconds:g} s from {time.strftime('%H:%M:%S')}", flush=True)
    try:
        report = asyncio.run(crash_test(seconds, members, chosen, power_cuts, keep))
    except CannotBuild as error:
        fail(str(error))
    except Violation as violation:
        fail(f"{violation}\n(seed {chosen})")
    print(report)
    print("nothing acknowledged was lost, no linearizable read was stale, no watch had a gap")
