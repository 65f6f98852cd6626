"""Libraries that other people wrote, in other languages, against a cluster of three. `make tools` builds them."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from holdfast_lab.processes import LocalCluster

from ..tools import CACHE

PROGRAMS = {
    "go": ([str(CACHE / "bin" / "go-clients")], 8),  # go.etcd.io/etcd/client/v3 and what is built on it
    "node": (["node", str(CACHE / "node-clients" / "main.mjs")], 5),  # etcd3
}


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_library_of_others(cluster: LocalCluster, language: str) -> None:
    asyncio.run(cluster.wait_ready())
    words, parts = PROGRAMS[language]
    assert Path(words[-1]).exists(), f"{words[-1]} is missing: run `make tools`"
    done = subprocess.run(
        [*words, ",".join(cluster.endpoints)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": ok") == parts, done.stdout
