"""The replica that writes the keys of its site: it notes requests, makes them durable together, and applies them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from google.protobuf.message import Message

from holdfast.edge.generations import Generations
from holdfast.edge.lineage import Lineage, Relation
from holdfast.edge.overlay import Overlay
from holdfast.edge.site_keys import SiteKeys
from holdfast.kv.hashing import RangeHash
from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.kv.store import StoreBusy
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.served.keyspace import ServedSpace
from holdfast.served.prune_task import PruneTask
from holdfast.served.scans import Scans
from holdfast.status import TOO_MANY_REQUESTS, Code, Refusal, RequestError
from holdfast.watch.hub import Hub

log = logging.getLogger("holdfast.edge")

BUSY_SECONDS = 0.2  # before the disk is asked again for what it did not take
TURN_SECONDS = 0.005  # of the loop, for requests that are applied in a row
ROOM_SECONDS = 1.0
MAX_WAITING = 1000  # requests
MAX_EPOCH = 1 << 60
_NO_EPOCH = Refusal(Code.INVALID_ARGUMENT, "holdfast: the keys of a site have no such epoch")
_FULL = Refusal(Code.UNAVAILABLE, "holdfast: the disk of the replica takes no writes, so nothing can be changed")

Done = Callable[[Message, int], None]  # response without its header, and revision
Failed = Callable[[Refusal], None]


class SiteWriter:
    """`tell` delivers changes to watchers and followers; `changed` is called when there is something to report; `flush`
    sends answers."""

    def __init__(
        self,
        generations: Generations,
        keys: SiteKeys,
        id: int,
        *,
        node: int,
        tell: Callable[[list[list[Change]]], None],
        changed: Callable[[], None],
        flush: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._generations = generations
        self.overlay = Overlay(generations.store, keys, id)
        self.served = ServedSpace(self.overlay.space, Scans(loop.call_soon, flush))
        self.path = holdfast_pb2.FollowPath(nodes=[node])
        self._tell = tell
        self._changed = changed
        self._flush = flush
        self._waiting: list[tuple[raft_pb2.Command, Done, Failed]] = []
        self._writing: asyncio.Task[None] | None = None
        self._broken: Exception | None = None
        self._pruning = PruneTask(self.served, loop.call_later, flush)

    @property
    def lineage(self) -> Lineage:
        return self.overlay.lineage

    @property
    def complete(self) -> bool:
        return True

    def change(self, command: raft_pb2.Command, done: Done, failed: Failed) -> None:
        """Change keys, and call `done` once that is durable. Raises RequestError if too much waits."""
        if len(self._waiting) >= MAX_WAITING:
            raise RequestError(TOO_MANY_REQUESTS)
        self._waiting.append((command, done, failed))
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        """One flush of the disk is for all that wait when it begins."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                first = self.overlay.note([command for command, _, _ in batch])
                if first is None:
                    for _, _, failed in batch:
                        failed(_FULL)
                else:
                    await self._sync()
                    await self._apply(first, batch)
                self._flush()
        except Exception as error:
            self._broken = error  # ends the server: better no answer than a wrong one
            raise
        finally:
            self._writing = None

    async def _apply(self, first: int, batch: list[tuple[raft_pb2.Command, Done, Failed]]) -> None:
        since = time.monotonic()
        for number, (command, done, failed) in enumerate(batch, first):
            if time.monotonic() > since + TURN_SECONDS:
                await asyncio.sleep(0)  # others have their turn
                since = time.monotonic()
            try:
                response, changes = self.overlay.apply(number, command)
            except RequestError as error:
                failed(error.refusal)
                continue
            done(response, self.overlay.space.revision)
            if changes:
                self._tell([changes])
        self._pruning.start()
        self._changed()

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(None, self._generations.store.sync)
                return
            except StoreBusy:
                await asyncio.sleep(BUSY_SECONDS)

    async def run(self) -> None:
        """It follows nobody, and looks whether a full disk has room again."""
        store = self._generations.store
        while True:
            await asyncio.sleep(ROOM_SECONDS)
            if self._broken is not None:
                raise self._broken
            if store.full and self.served.scans.idle and self._writing is None and store.has_room():
                store.reopen()

    async def close(self) -> None:
        """What waits is not answered any more. Raises StateDamaged or StoreBusy."""
        self._pruning.stop()
        if self._writing is not None:
            self._writing.cancel()
        await self._generations.close()


class WrittenHere:
    """Implements `edge.upstream.Source`: the other replicas of the site follow the writer."""

    term = 1
    users = False
    rights = b""

    def __init__(self, site: SiteWriter, poke: Callable[[], None]) -> None:
        self._site = site
        self.path = site.path
        self.hub: Hub = site.served.hub
        self.poke = poke

    @property
    def lineage(self) -> Lineage:
        return self._site.lineage

    @property
    def space(self) -> KeySpace:
        return self._site.overlay.space


class WriterHost:
    """Implements `api.follow.Host` for one replica of the site. `check` is that of keys of this replica."""

    def __init__(
        self,
        site: SiteWriter,
        poke: Callable[[], None],
        check: Callable[[holdfast_pb2.FollowStart | None, bool], None],
    ) -> None:
        self.source = WrittenHere(site, poke)
        self._site = site
        self._check = check
        self._began_again = False  # once: a follower that is wrong about it must not do more harm

    def check(self, start: holdfast_pb2.FollowStart | None, *, again: bool = False) -> None:
        self._check(start, again)
        if start is not None and start.cluster_id and not self._began_again:
            self._compare(start)

    def _compare(self, start: holdfast_pb2.FollowStart) -> None:
        """A copy follows the writer that its options name, whatever it has. If it has what is not here, this goes on as
        a later epoch, so that the copy goes over to it. Raises RequestError."""
        here, there = self._site.lineage, Lineage.of(start.cluster_id, start.epoch, start.lineage)
        relation = here.relation(there)
        newest, revision = max(start.watermark, start.held_watermark), self._site.overlay.space.revision
        if start.epoch >= MAX_EPOCH:
            raise RequestError(_NO_EPOCH)
        if here.first != there.first:
            raise RequestError(_began_elsewhere(start.replica, self._site.overlay.prefix))
        if relation is Relation.LATER or (relation is Relation.SAME and newest <= revision):
            return
        name = start.replica[:60]
        if relation is Relation.SAME:  # only this replica writes the keys of this epoch
            why = f"the keys of the site are an older copy: this has revision {revision}, and {name} has {newest}"
        else:
            why = f"{name} has keys of the site of epoch {there.epoch}, which another replica wrote"
        self._began_again = True
        self._site.overlay.begin_later_epoch(secrets.randbits(62) + 1, there.epoch)
        epoch = self._site.lineage.epoch
        log.error("%s. This goes on as epoch %d; the other replicas keep what it lacks in lost/", why, epoch)

    def shares_rights(self) -> bool:
        return False

    def scan(self, begin: Callable[[], RangeHash], done: Callable[[RangeHash], None]) -> None:
        work = begin()
        while not work.advance(1 << 20):
            pass
        done(work)

    def confirm(self, confirmed: Callable[[int | None], None]) -> None:
        confirmed(self.source.space.revision)  # whoever writes knows all that was written


def _began_elsewhere(replica: str, prefix: bytes) -> Refusal:
    return Refusal(
        Code.FAILED_PRECONDITION,
        f"holdfast: the replica {replica!r} has keys below {prefix.decode()} that this writer never had: it began "
        "without them. To go on with them, name a replica that has them as --site-writer, at all replicas of the site; "
        f"to go on without them, remove local/ from the data directory of {replica!r}",
    )
