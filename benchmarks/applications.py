"""How fast configuration reaches applications: a projection's signal after a change, a start without servers.

.venv/bin/python benchmarks/applications.py
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from holdfast import client
from holdfast_lab.processes import LocalCluster

CHANGES = 100
STARTS = 10
HOLDFAST = [sys.executable, "-m", "holdfast"]


def shown(name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"{name}: median {1000 * statistics.median(ordered):.0f} ms, p99 {1000 * p99:.0f} ms ({len(ordered)} times)")


def signals(directory: Path, local: LocalCluster) -> None:
    """From the acknowledgement of a write to the signal, which comes when the files are there."""
    pid_file = directory / "pid"
    pid_file.write_text(str(Path("/proc/self").resolve().name))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # in all threads that are started from now on
    command = ["project", "/app/", str(directory / "files"), f"--pid-file={pid_file}"]
    took = []
    with client.connect_blocking(local.endpoints, timeout=30) as hf:
        hf.put("/app/a", "0")
        with subprocess.Popen(
            [*HOLDFAST, *command, f"--endpoints={local.endpoints[0]}"], stderr=subprocess.PIPE
        ) as running:
            assert running.stderr is not None
            running.stderr.readline()
            for n in range(1, CHANGES + 1):
                hf.put("/app/a", str(n))
                began = time.perf_counter()
                if signal.sigtimedwait([signal.SIGHUP], 10) is None:
                    raise SystemExit("no signal came")
                took.append(time.perf_counter() - began)
                assert (directory / "files" / "a").read_text() == str(n)
            running.terminate()
    shown("signal after the acknowledgement of a write", took)


def starts(directory: Path, local: LocalCluster) -> None:
    """From the start of `holdfast exec` to the start of its command."""
    command = [
        "exec",
        "/app/",
        f"--endpoints={local.endpoints[0]}",
        f"--file={directory / 'kept'}",
        "--",
        "date",
        "+%s.%N",
    ]

    def start() -> float:
        began = time.time()
        done = subprocess.run([*HOLDFAST, *command], capture_output=True, text=True, check=True)
        return float(done.stdout) - began

    start()
    shown("start of holdfast exec", [start() for _ in range(STARTS)])
    local.kill()
    shown("the same while all servers are down", [start() for _ in range(STARTS)])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as place:
        directory = Path(place)
        local = LocalCluster(directory / "cluster", voters=3)
        local.start()
        try:
            signals(directory, local)
            starts(directory, local)
        finally:
            local.kill()


if __name__ == "__main__":
    main()
