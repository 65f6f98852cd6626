"""Metrics on memory use: by the store, by the front, and by the allocator.

Resident memory alone does not distinguish a leak from a cache that fills. If memory grows, look at what is allocated
beyond the bounded parts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from holdfast.storage.state import RocksStore


class Waiting(Protocol):
    """Bytes that a front buffers: incomplete requests, and responses that clients have not read."""

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
    """The mallinfo2 function, or None: only glibc 2.33 and later has it."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Mallinfo
    return function


def memory(store: RocksStore, log_bytes: int, front: Waiting) -> Iterator[Metric]:
    """`holdfast_memory_bytes` by part. "allocated" is in use by the process, "free" is held by the allocator."""
    use = store.memory()
    metric = GaugeMetricFamily("holdfast_memory_bytes", "where memory goes; see docs/performance.md", labels=["part"])
    parts = {
        "log": log_bytes,  # the newest raft entries, kept for followers that lag
        "rows": use.rows,  # not flushed to disk yet
        "block_cache": use.block_cache,
        "table_indexes": use.table_indexes,
        "requests": front.buffered,  # incomplete or not passed on yet
        "answers": front.queued,  # not read by clients yet
    }
    mallinfo = _mallinfo()
    if mallinfo is not None:
        info = mallinfo()
        parts |= {"allocated": info.uordblks + info.hblkhd, "free": info.fordblks}
    for part, size in parts.items():
        metric.add_metric([part], float(size))
    yield metric
