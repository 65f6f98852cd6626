"""`make run`, as far as a test can check it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.timeout(120)
def test_the_demonstration_shows_everything_and_leaves_nothing() -> None:
    running = subprocess.Popen(
        [sys.executable, "-u", "-m", "holdfast_lab", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert running.stdout is not None
    told: list[str] = []
    for line in running.stdout:
        told.append(line)
        if line.startswith("   etcdctl"):
            break
    children = subprocess.run(
        ["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    running.send_signal(signal.SIGINT)
    rest = running.stdout.read()
    assert running.wait(30) == 0, "".join(told) + rest
    story = "".join(told)
    for words in ("leads after", "the writer's longest wait", "cut off", "healed: 'while cut off'", "until Ctrl-C"):
        assert words in story, story
    assert "Traceback" not in story + rest
    assert len(children) == 4, "three voters and a replica keep running"
    for pid in children:
        assert subprocess.run(["kill", "-0", pid], capture_output=True, check=False).returncode != 0, "left behind"
