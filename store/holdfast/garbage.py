"""When a server process collects garbage: not while it starts, and later only what is new.

Reference counts free almost everything here; collections find only cycles.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

FULL = 2  # the generation of a full garbage collection


def collect_nothing_yet() -> None:
    """Collect nothing until `freeze_what_survives`: nearly all that is created while a process starts stays, and
    looking at it again and again takes up to a tenth of the start."""
    gc.disable()


def freeze_what_survives() -> None:
    """Let a full collection look at each object once only. What was imported and what is stored stays, and with
    100,000 rows each look at all of it would hold up the loop for 70 ms. Full collections find nothing, whatever
    clients do. A cycle that dies after it was looked at is not found, so the soak test watches the memory."""

    def collected(phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop" and info["generation"] == FULL:
            gc.freeze()

    gc.freeze()
    gc.callbacks.append(collected)
    gc.enable()
