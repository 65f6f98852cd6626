"""The time that limits of time are counted by: that of the event loop, so a simulation can let it pass at once."""

from __future__ import annotations

import asyncio


def now() -> float:
    """Seconds, from any start, which only grow."""
    return asyncio.get_running_loop().time()
