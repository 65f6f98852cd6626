"""The stores of a replica: the one that is served, the one that a snapshot is built in, and those that reads still use.

Each is a generation of the state. The pointer to the one in use is replaced when the next one is durable, so after a
power cut it is either the old data or the new. What was built of a snapshot is found again at the next start: RocksDB
recovers a state that was there, and the rows of such a state say what it holds.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from holdfast.client.errors import Unavailable
from holdfast.kv.store import StateDamaged, StoreBusy
from holdfast.storage.files import sync_directory
from holdfast.storage.identity import STATE_MARK, DataDirectory, ReadOnlyDirectory
from holdfast.storage.state import RocksStore, StateDirectory, StateUnreadable

log = logging.getLogger("holdfast.edge")


class Generations:
    """Files are made, flushed and removed in threads."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Raises Damaged, StateDamaged or StateUnreadable."""
        self._mark = path / STATE_MARK
        self._states = StateDirectory(path / "state")
        self.store = RocksStore(self._states.current(), wal=True, mark=self._mark, read_only=read_only)
        self.building: RocksStore | None = None
        if not read_only:
            unfinished = self._states.unfinished()
            self.building = None if unfinished is None else self._found(unfinished)
            self._states.clean(self.building.path if self.building is not None else None)
        self._retired: list[RocksStore] = []
        self._working: asyncio.Future[None] | None = None

    @classmethod
    def of(cls, data: DataDirectory) -> Generations:
        """Open the replica's state, or create an empty one. Raises as the constructor does."""
        if not data.identity.made:
            _make_empty(StateDirectory(data.begin_making() / "state"))
            data.made()
        return cls(data.path, read_only=False)

    @classmethod
    def at(cls, path: Path) -> Generations:
        """Open the state in this directory, or create the directory with an empty one. It is there as a whole or not
        at all, so one that lost its files is not taken for a new one. Raises as the constructor does."""
        if not path.exists():
            making = path.with_name(path.name + ".new")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            _make_empty(StateDirectory(making / "state"))
            making.rename(path)
            sync_directory(path.parent)
        return cls(path, read_only=False)

    @classmethod
    def read_only(cls, data: ReadOnlyDirectory) -> Generations:
        """What is there, on a disk that takes nothing. Raises as the constructor does."""
        return cls(data.path, read_only=True)

    @property
    def used(self) -> list[RocksStore]:
        """What is served now or may be soon."""
        return [store for store in (self.store, self.building) if store is not None]

    def _found(self, path: Path) -> RocksStore | None:
        """What an earlier run has built; None if it cannot be read as a whole."""
        try:
            store = RocksStore(path, wal=True)
        except (StateDamaged, StateUnreadable) as error:
            log.warning("a snapshot that was not whole is given up: %s", error)
            return None
        try:
            store.verify()
        except StateDamaged as error:
            log.warning("a snapshot that was not whole is given up: %s", error)
            store.close()
            return None
        return store

    async def renew(self) -> RocksStore:
        """An empty store to build in. What was built before is given up. Raises Unavailable."""

        def work() -> None:
            before, self.building = self.building, None
            if before is not None:
                before.close()
                self._states.discard(before.path)
            self.building = RocksStore(self._states.fresh(), wal=True)

        await self._do(work)
        assert self.building is not None
        return self.building

    async def use(self) -> None:
        """Make what was built durable, and put it in use for the next start. Raises Unavailable."""
        store = self.building
        assert store is not None

        def work() -> None:
            store.flush()
            store.sync()
            # The mark is of one generation. A crash here leaves none, and the next start makes one.
            self._mark.unlink(missing_ok=True)
            sync_directory(self._mark.parent)
            self._states.point_to(store.path)
            try:
                store.keep_mark(self._mark)
            except OSError as error:
                log.warning("%s cannot be written; the next start writes it: %s", self._mark, error)

        await self._do(work)

    async def _do(self, work: Callable[[], None]) -> None:
        self._working = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            await asyncio.shield(self._working)
        except (OSError, StoreBusy, StateUnreadable) as error:
            raise Unavailable(f"a snapshot cannot be kept here: {error}") from error

    def succeed(self) -> RocksStore:
        """What was built is served from now on. Reads of what was served may go on."""
        assert self.building is not None
        self._retired.append(self.store)
        self.store, self.building = self.building, None
        return self.store

    def give_up(self) -> None:
        """What was built is not used any more."""
        before, self.building = self.building, None
        if before is not None:
            self._retired.append(before)

    @property
    def retired(self) -> bool:
        """Whether there are stores that can be removed once no read uses them."""
        return bool(self._retired)

    async def remove_retired(self) -> None:
        """Remove what is not used any more: no read of it may be in progress."""
        gone, self._retired = self._retired, []

        def work() -> None:
            for store in gone:
                store.close()
                self._states.discard(store.path)

        await asyncio.get_running_loop().run_in_executor(None, work)

    async def close(self) -> None:
        """The end. Raises StateDamaged or StoreBusy if what is served is not durable; all is closed even so."""
        if self._working is not None:
            await asyncio.wait([self._working])
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.store.flush)
        finally:
            for store in (self.store, self.building, *self._retired):
                if store is not None:
                    store.close()


def _make_empty(states: StateDirectory) -> None:
    store = RocksStore(states.fresh())
    store.flush()
    store.close()
    states.use(store.path)
