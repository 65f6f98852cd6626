"""Ours and etcd side by side: three members each, the same load generator (etcd's own), one run, one machine.

    make bench

Rates on a shared machine vary; the CPU per operation, summed over the members, holds better. Nothing here asserts.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etcd_cluster import TOOLS, EtcdCluster
from holdfast_lab.processes import LocalCluster
from rich.console import Console
from rich.table import Table

TICKS = os.sysconf("SC_CLK_TCK")

# (what, clients, requests, the generator's words)
LOADS = [
    ("put, 1 client", 1, 500, ["put", "--val-size=64", "--key-size=32", "--sequential-keys"]),
    ("put, 64 clients", 64, 6000, ["put", "--val-size=64", "--key-size=32", "--sequential-keys"]),
    ("linearizable get, 64 clients", 64, 6000, ["range", "bench", "--consistency=l"]),
    ("serializable get, 64 clients", 64, 6000, ["range", "bench", "--consistency=s"]),
]


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that these processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


@contextmanager
def ours(directory: Path, members: int = 3) -> Iterator[tuple[list[str], list[int]]]:
    """Endpoints and process ids."""
    cluster = LocalCluster(directory / "holdfast", voters=members)
    cluster.start()
    try:
        asyncio.run(cluster.wait_ready())
        yield cluster.endpoints, [p.running.pid for p in cluster.voters.values() if p.running]
    finally:
        cluster.stop()


@contextmanager
def etcd(directory: Path, members: int = 3) -> Iterator[tuple[list[str], list[int]]]:
    cluster = EtcdCluster(directory / "etcd", members)
    cluster.start()
    try:
        cluster.wait_ready()
        yield cluster.endpoints, cluster.pids
    finally:
        cluster.stop()


def load(endpoints: list[str], clients: int, total: int, words: list[str]) -> float:
    """Requests per second, as etcd's load generator says."""
    generator = [
        str(TOOLS / "etcd-benchmark"),
        f"--endpoints={','.join(endpoints)}",
        f"--conns={min(clients, 8)}",
        f"--clients={clients}",
        words[0],
        f"--total={total}",
        *words[1:],
    ]
    done = subprocess.run(generator, capture_output=True, text=True, check=True)
    found = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    if found is None:
        sys.exit(f"the load generator said no rate:\n{done.stdout}{done.stderr}")
    return float(found.group(1))


def measure(endpoints: list[str], pids: list[int]) -> list[tuple[float, float]]:
    """For each load: (requests per second, CPU microseconds per request over all members)."""
    subprocess.run(
        [str(TOOLS / "etcdctl"), f"--endpoints={','.join(endpoints)}", "put", "bench", "x" * 64],
        check=True,
        capture_output=True,
    )
    results = []
    for _, clients, total, words in LOADS:
        before = cpu_seconds(pids)
        rate = load(endpoints, clients, total, words)
        results.append((rate, (cpu_seconds(pids) - before) / total * 1e6))
    return results


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    try:
        with ours(directory) as (endpoints, pids):
            mine = measure(endpoints, pids)
        with etcd(directory) as (endpoints, pids):
            theirs = measure(endpoints, pids)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    table = Table("", "holdfast /s", "etcd /s", "ratio", "holdfast CPU µs", "etcd CPU µs", box=None)
    for (what, *_), (rate, cpu), (their_rate, their_cpu) in zip(LOADS, mine, theirs, strict=True):
        row = [f"{rate:,.0f}", f"{their_rate:,.0f}", f"{rate / their_rate:.2f}", f"{cpu:,.0f}", f"{their_cpu:,.0f}"]
        table.add_row(what, *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
