"""History that was compacted goes, whatever the store says meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from holdfast.kv.rows import revision_key
from holdfast.kv.store import Family, StoreBusy
from holdfast.member.interface import Answer
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.storage.state import RocksStore

from ..member.nodes import Nodes
from ..stalls import stall, unstall

WRITES = 30


async def test_removals_are_kept_while_the_store_is_busy(tmp_path: Path) -> None:
    """RocksDB stalls writes between the compaction and the removal of its rows: they go all the same, without another
    compaction. Those that were found when it stalled were dropped."""
    nodes = Nodes(tmp_path, 1)
    await nodes.start()
    try:
        for _ in range(WRITES):
            await nodes.put("m0", b"k")
        member = nodes.nodes["m0"].member
        assert member is not None
        store = member.store
        refused = asyncio.Event()
        apply = store.apply

        def watched(batch: Any) -> None:
            try:
                apply(batch)
            except StoreBusy:
                refused.set()
                raise

        store.apply = watched  # type: ignore[method-assign]
        pruned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def compacted(answer: Answer) -> None:
            assert answer.error is None
            stall(store)
            member.when_pruned(lambda: pruned.set_result(None))

        compact = raft_pb2.Command(compact=rpc_pb2.CompactionRequest(revision=member.revision))
        member.propose(compact, compacted)
        async with asyncio.timeout(20):
            await refused.wait()
            unstall(store)
            await pruned
        assert _history(store, member.revision) == 1
    finally:
        await nodes.close()


def _history(store: RocksStore, revision: int) -> int:
    return len(list(store.scan(Family.REV, revision_key(0), revision_key(revision + 1))))
