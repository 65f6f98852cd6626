"""The commands of "Try it" in docs/edge.md, as they are shown, but for the ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from holdfast_lab.processes import free_ports

DOCS = Path(__file__).parents[3] / "docs" / "edge.md"


def script() -> str:
    section = DOCS.read_text().split("## Try it\n")[1].split("\n## ")[0]
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
    addresses = sorted(set(re.findall(r"127\.0\.0\.1:\d+", text)))
    for address, port in zip(addresses, free_ports(len(addresses)), strict=True):
        text = text.replace(address, f"127.0.0.1:{port}")
    return text


def print_logs(directory: Path) -> None:
    for log in sorted(directory.glob("*.log")):
        print(f"--- {log.name}", log.read_text()[-2000:], sep="\n")


@pytest.mark.timeout(180)
async def test_it_runs_as_shown(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script(),
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        assert run.stdout is not None
        text = (await run.stdout.read()).decode()
    finally:
        with contextlib.suppress(ProcessLookupError):  # all that it started are in its group
            os.killpg(run.pid, signal.SIGKILL)
        await run.wait()
    print_logs(tmp_path)
    print("--- the commands", text, sep="\n")
    lines = text.splitlines()
    assert lines[0].startswith("OK at revision ")
    values = [line.split()[-1] for line in lines if line.startswith(("/stores/flag ", "/local/berlin/stores/flag "))]
    assert values == ["on", "on", "on", "off"]
    assert {"m1", "m2", "m3"} <= {line.split()[1] for line in lines if line.startswith(("├─", "└─"))}
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: replica berlin-1 is disconnected from its cluster")
    assert sum(line.startswith("OK at revision ") for line in lines) == 2
