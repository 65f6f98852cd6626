"""Where we mean to answer otherwise than etcd, each with its reason. Everything else has to be the same.

A rule is (method, our answer, etcd's answer) -> whether this is the difference that it names; answers are as `plain`
makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Meant(NamedTuple):
    reason: str
    applies: Callable[[str, Any, Any], bool]


MEANT: list[Meant] = []


def is_meant(method: str, ours: Any, theirs: Any) -> str:
    """The reason, or nothing if the difference is not one that we mean."""
    return next((m.reason for m in MEANT if m.applies(method, ours, theirs)), "")
