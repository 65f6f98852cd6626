"""What `holdfast.client` offers, and what importing it does not import."""

from __future__ import annotations

import subprocess
import sys

import pytest
from holdfast import client


@pytest.mark.parametrize("name", client.__all__)
def test_every_name_is_there(name: str) -> None:
    assert name in dir(client)
    assert getattr(client, name).__name__ == name


def test_other_names_are_not() -> None:
    assert not hasattr(client, "Clint")
    with pytest.raises(ImportError, match="cannot import name 'Clint'"):
        exec("from holdfast.client import Clint")


def test_what_a_replica_does_not_need_is_not_imported_when_it_starts() -> None:
    """Its first read after a start waits for all imports."""
    program = "import sys, holdfast.edge.server; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    found = shown.stdout.split()
    assert "holdfast.edge.core" in found
    for module in ("holdfast.client.blocking", "holdfast.client.cache", "holdfast.raft.core", "rich", "pydantic"):
        assert module not in found
