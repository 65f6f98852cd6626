"""Which replica of an edge pool is replaced next. A replica may be the only copy that its site can reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    name: str
    uid: str
    outdated: bool
    ready: bool
    runs: bool  # its container runs, or may run
    terminating: bool
    reachable: bool  # its node is ready; a replica on a node that is cut off goes on serving
    trouble: str = ""
    relay: bool = False  # others of the pool are to follow it


def replace_one(replicas: Sequence[Replica], *, missing: bool = False) -> Replica | None:
    """The replica to replace now, or None. Relays come first, so that those below have something to follow, which has
    all of their prefixes. One that does not run is replaced at once; others one at a time, and only while all that can
    be reached are ready, and none is `missing`: not made yet on a node that can be reached. On a node that is cut off
    nothing is known: what failed when it last reported may run by now, and its kubelet would hear of a deletion only
    once it is back."""
    ordered = sorted(replicas, key=lambda r: (not r.relay, r.name))
    outdated = [r for r in ordered if r.outdated and not r.terminating]
    idle = [r for r in outdated if not r.runs and r.reachable]
    if idle:
        return idle[0]
    here = [r for r in replicas if r.reachable]
    if any(r.terminating for r in here):
        return None
    broken = [r for r in outdated if r.reachable and not r.ready]
    if broken:
        return broken[0]
    if missing or any(not r.ready for r in here):
        return None
    return next((r for r in outdated if r.reachable), None)
