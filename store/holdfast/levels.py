"""Levels: versions of the state machine's behaviour. A cluster uses the newest level that every member's program has.

All members must apply the log in the same way. So a program applies a command in a new way only once the log itself
says that all members can: by a `ClusterVersion`, which the leader proposes when every member of the configuration has
reported a high enough level. The version is part of the state and of every snapshot.
"""

from __future__ import annotations

LEVEL = 2  # the newest level of this program
CLUSTER_VERSION = "0.2.0"  # the corresponding cluster version

_LEVELS = {"0.0": 1, "0.1": 1, "0.2": 2}  # by major and minor


def level_of(version: str) -> int | None:
    """The level of a cluster version; None if this program does not know it. Old states have an empty version."""
    return _LEVELS.get(".".join(version.split(".")[:2])) if version else 1
