"""Processes that share the work of a simulator's seeds, one for each core. They end with the process that made them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process


def pool(jobs: int) -> ProcessPoolExecutor:
    """`jobs` processes; 0: one for each core. New processes, not forks: a fork would inherit locks that threads of gRPC
    and RocksDB hold."""
    return ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=get_context("forkserver"), initializer=_follow_parent)


def _follow_parent() -> None:
    """End when the parent does, even if it is killed: a worker of an executor would finish what it has, and wait."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
