"""The intended differences between our answers and etcd's, each with its reason. Everything else has to be the same.

A rule is (method, our answer, etcd's answer) -> whether this is the difference that it names; answers are as `plain`
makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Meant(NamedTuple):
    reason: str
    applies: Callable[[str, Any, Any], bool]


_CORRUPT = ("DATA_LOSS", "etcdserver: corrupt cluster")
_REFUSED = (
    ("INVALID_ARGUMENT", "etcdserver: user name is empty"),
    ("PERMISSION_DENIED", "etcdserver: permission denied"),
)

MEANT: list[Meant] = [
    Meant(
        "While the CORRUPT alarm is raised, etcd tells every caller of it. Ours refuses a caller without rights first, "
        "so that only those who may use the key space learn of the alarm.",
        lambda method, ours, theirs: theirs == _CORRUPT and ours in _REFUSED,
    ),
]

# Requests that the tester avoids, because a difference is intended or is a defect of etcd.
NOT_COMPARED = [
    "Watches while users are switched on, or lose a right: ours end those whose user may not see their range any more "
    "(GHSA-xg4h-6gfc-h4m8 and its kin); etcd asks only when a watch is made.",
    "A watch that was ended for want of history: etcd keeps it among the stream's, so that no progress is reported on "
    "the stream until the client cancels what has ended. Ours lets go of it.",
    "Learners, members, snapshots, status: what is there differs by nature. `test_etcdctl*.py` looks at them.",
    "The order of leases, of the keys of a lease, and seconds that pass.",
]


def is_meant(method: str, ours: Any, theirs: Any) -> str:
    """The reason, or nothing if the difference is not one that we mean."""
    return next((m.reason for m in MEANT if m.applies(method, ours, theirs)), "")
