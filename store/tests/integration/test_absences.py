"""A member that was away for longer than the log is kept catches up, on real servers in namespaces of their own."""

from __future__ import annotations

import os
import shutil

import pytest

from .test_bootstrap import holdfast

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root and the program ip"
)


@needs_root
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["cut silently, then restarted", "cut from it", "emptied"])
def test_a_member_that_was_away_catches_up(kind: str) -> None:
    status, output = holdfast("crashtest", "--absences=1", f"--away={kind}", seconds=170.0)
    assert status == 0, output
    assert f"| {kind} | 1 |" in output
