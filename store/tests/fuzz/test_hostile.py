"""A few seconds of what `make fuzz` does for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from .hostile import attack


@pytest.mark.integration
async def test_hostile_clients_harm_nobody_else(tmp_path: Path) -> None:
    print(await attack(tmp_path, seconds=10.0, seed=1))
