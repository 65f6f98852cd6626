"""Which behaviour of the state machine a cluster uses: the newest one that every member's program has.

Members that apply one log have to do the same, so a program that applies a command in a new way does so only once the
log itself says that all members can. The log says it by a `ClusterVersion`, which the leader proposes when each member
of the configuration has told it a high enough level; the version is part of the state and of every snapshot.
"""

from __future__ import annotations

LEVEL = 2  # the newest that this program has
CLUSTER_VERSION = "0.2.0"  # the same, as the state names it

_LEVELS = {"0.0": 1, "0.1": 1, "0.2": 2}  # by major and minor


def level_of(version: str) -> int | None:
    """The level that a cluster version stands for; None: this program does not know it. States of old name none."""
    return _LEVELS.get(".".join(version.split(".")[:2])) if version else 1
