"""A member that was away for longer than the log is kept catches up, on real servers in namespaces of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the program ip"
)


@needs_root
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["cut silently, then restarted", "cut from it", "emptied"])
def test_a_member_that_was_away_catches_up(kind: str) -> None:
    command = [sys.executable, "-m", "holdfast_lab", "crashtest", "--absences=1", f"--away={kind}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {kind} | 1 |" in done.stdout
