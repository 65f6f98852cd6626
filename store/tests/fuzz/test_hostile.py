"""A few seconds of what `make fuzz` does for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from .alone import beside
from .hostile import attack


@pytest.mark.integration
async def test_hostile_clients_harm_nobody_else(tmp_path: Path) -> None:
    print(await attack(tmp_path, seconds=10.0, seed=1))


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", ["settings-windows", "window-updates", "half-open", "slow-bodies", "long-paths", "many-rows"]
)
async def test_others_are_served_while_one_connection_attacks(name: str, tmp_path: Path) -> None:
    """Not how fast: `make fuzz` says that."""
    quiet, attacked = await beside(name, tmp_path, seconds=1.0)
    print(quiet, attacked)
