"""Which replicas of a pool are relays: those that follow the cluster, and that the others of the pool follow."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable


def relays(pool: str, nodes: Iterable[str], count: int) -> frozenset[str]:
    """The nodes whose replicas are relays; all of them if there are no more than `count`.

    Each node has a rank of its own in the pool, which no other node changes. So a node that joins takes the place of at
    most one relay, and if a node leaves, at most one other replica becomes a relay in its place. Whether a node is
    ready does not matter: a replica restarts to become a relay, and a node that is cut off comes back."""
    return frozenset(heapq.nsmallest(count, nodes, key=lambda node: _rank(pool, node)))


def _rank(pool: str, node: str) -> bytes:
    """Names of nodes and pools have no slash."""
    return hashlib.sha256(f"{pool}/{node}".encode()).digest()
