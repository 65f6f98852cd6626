"""Clients of three members of which one is frozen, or slow, or none: holdfast's, etcd's Go library, and one from PyPI.

    make bench-client          (about twenty minutes)
    python benchmarks/client.py --rate 1000 --seconds 60 --json FILE [--only frozen,slow,balance,hedging,cache]

All use the same holdfast servers. A read is measured from when it was due, not from when it began, so a client that
falls behind shows it; "late" is the most that the load program itself was behind. A figure that is not as wanted is
marked; nothing here asserts. What cannot be measured has its reason in its place.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from clients import programs, rows, servers
from clients.programs import Failed, Program
from clients.protocol import READ, WATCHED
from clients.rows import Bench, Row
from rich.console import Console
from rich.table import Table

PARTS = {
    "frozen": "One of three members frozen for half of the time: wanted no failed read, p99 < 1 s, watch deaf < 5 s",
    "slow": "One member behind a proxy: wanted less than 5 % of the reads there",
    "balance": "Thirty clients of three members: wanted no share more than 20 % off the mean",
    "hedging": "A proxy holds up some calls for 100 ms: wanted p99 5 times better, at most 5 % more calls",
    "cache": "The near-cache, one thread: wanted 1,000,000 reads/s",
}
CACHED = {f"bench/cached/{number:03}": f"value {number}" for number in range(500)}
CACHED_PREFIX = "bench/cached/"


def options(words: list[str] | None = None) -> argparse.Namespace:
    def parts(text: str) -> list[str]:
        unknown = set(names := text.split(",")) - PARTS.keys()
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: write some of {', '.join(PARTS)}")
        return names

    def positive(text: str) -> float:
        if not 0 < (number := float(text)) < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not a positive number")
        return number

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=positive, default=1000.0, help="reads a second, of all clients together")
    parser.add_argument("--seconds", type=positive, default=60.0, help="of each load with a frozen member")
    parser.add_argument("--short-seconds", type=positive, default=20.0, help="of each other load")
    parser.add_argument("--timeout", type=positive, default=10.0, help="seconds of each read, with its fail-over")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--only", type=parts, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    return parser.parse_args(words)


async def each(what: str, all_programs: list[Program], measure: Callable[[Program], Awaitable[Row]]) -> list[Row]:
    """The same measurement of each program, or why there is none."""
    found = []
    for program in all_programs:
        if program.reason:
            found.append(rows.left_out(what, program))
            continue
        try:
            row = await measure(program)
        except Failed as error:
            row = rows.left_out(what, program, error)
        row.raw["load_average"] = os.getloadavg()
        print(f"{row.what}, {row.client}: {row.figures or row.reason}", file=sys.stderr)
        found.append(row)
    return found


async def measure(chosen: argparse.Namespace, bench: Bench, short: Bench) -> dict[str, list[Row]]:
    mine = [programs.holdfast()]
    go = [programs.go()]
    python = await asyncio.to_thread(programs.python_others) if {"frozen", "balance"} & set(chosen.only) else []
    found: dict[str, list[Row]] = {part: [] for part in chosen.only}
    for serializable in (False, True):
        kind = rows.kind(serializable)
        for leader in (False, True) if "frozen" in chosen.only else ():
            found["frozen"] += await each(
                f"{'leader' if leader else 'follower'} frozen, {kind}",
                mine + go + python,
                lambda p, le=leader, s=serializable: rows.frozen(bench, p, leader=le, serializable=s),
            )
        if "slow" in chosen.only:
            what = f"follower {rows.FAR_MILLISECONDS:g} ms away each way, {kind}"
            measured = await each(what, mine + go, lambda p, s=serializable: rows.slow(short, p, serializable=s))
            found["slow"] += measured
        if "balance" in chosen.only:
            found["balance"] += await each(
                f"{rows.BALANCED_CLIENTS} clients, {kind}",
                mine + go + python,
                lambda p, s=serializable: rows.balance(short, p, serializable=s),
            )
    if "hedging" in chosen.only:
        for stalled in (1, 3):
            found["hedging"] += await rows.hedging(short, mine[0], stalled=stalled)
    if "cache" in chosen.only:
        found["cache"] += await rows.near_cache(short, CACHED, CACHED_PREFIX)
    return found


def show(console: Console, title: str, measured: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in measured for name in row.figures))
    table = Table("", "client", *names, box=None, title=title, title_justify="left")
    for row in measured:
        if row.reason:
            table.add_row(row.what, row.client, "not measured")
            continue
        cells = [row.figures.get(name, "") + ("" if row.wanted.get(name, True) else " [bold]✗[/]") for name in names]
        table.add_row(row.what, row.client, *cells)
    console.print(table)
    for client, reason in dict.fromkeys((row.client, row.reason) for row in measured if row.reason):
        console.print(f" {client} is not measured: {reason}", markup=False)
    console.print()


def main() -> None:
    chosen = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    before = os.getloadavg()
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-clients-", ignore_cleanup_errors=True) as directory,
        servers.cluster(Path(directory) / "members") as local,
    ):
        asyncio.run(servers.prepare(local, {READ: "x" * 64, WATCHED: "0", **CACHED}))
        bench = Bench(local, chosen.rate, chosen.seconds, chosen.timeout)
        short = Bench(local, chosen.rate, chosen.short_seconds, chosen.timeout)
        found = asyncio.run(measure(chosen, bench, short))
    console = Console(width=190)
    after = os.getloadavg()
    console.print(
        f"{chosen.rate:g} reads/s with a timeout of {chosen.timeout:g} s, for {chosen.seconds:g} s, "
        f"or {chosen.short_seconds:g} s without a freeze; {os.cpu_count()} cores, "
        f"load average {before[0]:.1f} before, {after[0]:.1f} after; ✗: not as wanted\n"
    )
    for part, measured in found.items():
        show(console, PARTS[part], measured)
    if chosen.json:
        told = {part: [asdict(row) for row in measured] for part, measured in found.items()}
        described = {
            "rate": chosen.rate,
            "seconds": chosen.seconds,
            "timeout": chosen.timeout,
            "load_average": [before, after],
            **told,
        }
        chosen.json.write_text(json.dumps(described, indent=1))


if __name__ == "__main__":
    main()
