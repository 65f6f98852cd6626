"""A copy of the keys of the site, at a replica that does not write them: it follows the one that does, as replicas
follow each other, and serves what it has while it does not reach it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from holdfast.client.connection import Connection
from holdfast.edge.core import Loaded, ReplicaCore, ranges_of
from holdfast.edge.follow import Follower
from holdfast.edge.generations import Generations
from holdfast.edge.lineage import Lineage
from holdfast.edge.lost import keep_before_going_over
from holdfast.edge.site_keys import SiteKeys
from holdfast.kv.rows import Change
from holdfast.kv.store import StateDamaged, StoreBusy
from holdfast.served.keyspace import ServedSpace
from holdfast.served.prune_task import PruneTask
from holdfast.served.scans import Scans
from holdfast.status import SITE_METADATA

log = logging.getLogger("holdfast.edge")

SYNC_SECONDS = 1.0


class SiteCopy:
    """`data`: the data directory of the replica. `tell` delivers changes to watchers; `damaged` is told of damage to
    the store, on any thread."""

    def __init__(
        self,
        data: Path,
        generations: Generations,
        keys: SiteKeys,
        *,
        node: int,
        writer: Connection,
        name: str,
        tell: Callable[[list[list[Change]]], None],
        damaged: Callable[[StateDamaged], None],
        flush: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._data = data
        self._generations = generations
        self._keys = keys
        self.core = ReplicaCore(generations.store, ranges_of([keys.prefix.decode()]), node, generations.building)
        self.served = ServedSpace(self.core.space, Scans(loop.call_soon, flush))
        self._tell = tell
        self._damaged = damaged
        self._pruning = PruneTask(self.served, loop.call_later, flush)
        self._synced = self.core.written
        self.follower = Follower(
            self.core,
            [writer],
            name=name,
            pool="",
            changed=self._changed,
            replaced=self._replaced,
            build=self._build,
            built=self._built,
            restored=self._keep_lost,
            metadata=((SITE_METADATA, keys.site.name),),
            reports=False,
            subject=f"keys of the site {keys.site.name}: ",
        )

    @property
    def lineage(self) -> Lineage:
        return self.core.position.lineage

    @property
    def complete(self) -> bool:
        return self.core.complete

    def _changed(self, changes: list[Change]) -> None:
        self._tell([changes] if changes else [])

    def _replaced(self, loaded: Loaded) -> None:
        self.served.replace(self.core.space, another_history=loaded is Loaded.ANOTHER_HISTORY)
        self._tell([])

    async def _build(self) -> None:
        self.core.build(await self._generations.renew())

    async def _built(self) -> None:
        self.core.conclude()
        if self.core.stalled:
            return
        await self._generations.use()
        loaded = self.core.succeed()
        self._generations.succeed().on_damage = self._damaged
        self._synced = self.core.written
        self._replaced(loaded)

    async def _keep_lost(self, later: Lineage) -> None:
        """The writer went on from something else than what is here: keep what it lacks."""
        p = self.core.position
        log.warning(
            "%s writes the keys of the site %s in epoch %d: serving what epoch %d had at revision %d until then",
            *(self._keys.site.writer, self._keys.site.name, later.epoch, p.epoch, p.watermark),
        )
        await keep_before_going_over(self._data, self.core, later)

    async def run(self) -> None:
        keeping = asyncio.ensure_future(self._keep())
        try:
            await self.follower.run()
        finally:
            keeping.cancel()

    async def _keep(self) -> None:
        """Make durable what has come; a power cut loses the last second, which is then asked for again."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            store = self._generations.store
            if store.full and self.served.scans.idle and store.has_room():
                store.reopen()
            self.core.settle()
            written = self.core.written
            if written != self._synced and not self.core.stalled:
                with contextlib.suppress(StoreBusy):
                    await loop.run_in_executor(None, self._generations.store.sync)
                    self._synced = written
            if self.core.building is None and not self.core.wants_store:
                self._generations.give_up()
            if self._generations.retired and self.served.scans.idle:
                await self._generations.remove_retired()
            if self.served.pruned and not self.core.stalled:
                self.core.forget_history()
            self._pruning.start()

    async def close(self) -> None:
        """Raises StateDamaged or StoreBusy."""
        self._pruning.stop()
        if not self.core.stalled:
            self.core.save()
        await self._generations.close()
