"""Ten thousand watchers of one key, and fifty thousand leases kept alive, at one server: ours and etcd side by side.

    make bench-watchers        make bench-leases

The same load generator (`e2e/tools/load`) for both, one after the other on one machine. Nothing here asserts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compare import cpu_seconds, etcd, ours
from etcd_cluster import TOOLS
from holdfast_lab.processes import rss_mib
from rich.console import Console
from rich.table import Table


def run(server: Any, words: list[str], directory: Path) -> dict[str, float]:
    with server(directory, members=1) as ((endpoint,), (pid,)):
        memory, cpu, began = rss_mib(pid), cpu_seconds([pid]), time.monotonic()
        generator = [str(TOOLS / "load"), words[0], f"--endpoints={endpoint}", *words[1:]]
        found: dict[str, float] = json.loads(subprocess.run(generator, check=True, capture_output=True).stdout)
        seconds = time.monotonic() - began
        used = cpu_seconds([pid]) - cpu
        return {
            **found,
            "cpu_percent": 100 * used / seconds,
            "cpu_seconds": used,
            "memory_before_mib": memory,
            "memory_after_mib": rss_mib(pid),
        }


def main() -> None:
    what = sys.argv[1]
    words = {
        "watchers": ["watch", "--count=10000", "--streams=100", "--rounds=20"],
        "leases": ["lease", "--count=50000", "--streams=10", "--ttl=60", "--seconds=300"],
    }[what]
    words += sys.argv[2:]
    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    try:
        mine, theirs = run(ours, words, directory), run(etcd, words, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    table = Table(what, "holdfast", "etcd", box=None)
    for name, value in mine.items():
        table.add_row(name, f"{value:,.1f}", f"{theirs[name]:,.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
