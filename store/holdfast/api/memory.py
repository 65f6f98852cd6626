"""Where the memory goes: what the store and the front keep, and what the allocator holds.

Resident memory alone does not tell a leak from a cache that fills. What is allocated and none of the parts that are
bounded is what to look at when it grows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from holdfast.storage.state import RocksStore


class Waiting(Protocol):
    """What a front keeps for clients."""

    buffered: int
    queued: int


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )
    arena: int
    hblkhd: int
    uordblks: int
    fordblks: int


@cache
def _mallinfo() -> ctypes._FuncPointer | None:
    """glibc's, from 2.33 on; other C libraries do not tell."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Mallinfo
    return function


def memory(store: RocksStore, log_bytes: int, front: Waiting) -> Iterator[Metric]:
    """`holdfast_memory_bytes` by part: of what is allocated, and what of it is free to be allocated again."""
    use = store.memory()
    metric = GaugeMetricFamily("holdfast_memory_bytes", "where memory goes; see docs/performance.md", labels=["part"])
    parts = {
        "log": log_bytes,  # the newest of the raft log, for members that lag
        "rows": use.rows,  # not on disk yet
        "block_cache": use.block_cache,
        "table_indexes": use.table_indexes,
        "requests": front.buffered,  # that are not whole yet
        "answers": front.queued,  # that their clients do not fetch
    }
    mallinfo = _mallinfo()
    if mallinfo is not None:
        info = mallinfo()
        parts |= {"allocated": info.uordblks + info.hblkhd, "free": info.fordblks}
    for part, size in parts.items():
        metric.add_metric([part], float(size))
    yield metric
