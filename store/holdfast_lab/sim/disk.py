"""A simulated disk of one member: what is on it, what is being written, and what a crash leaves.

The log is a sequence of records as `storage.log` writes them: a crash keeps any prefix of what was not synced, a
record torn in its entries where production splits it into frames. (A subset that is no prefix looks the same to a
reader: it stops at the first frame that is not whole.) The state goes back to its last flush, as RocksDB without its
write-ahead log does. Rot in a record that a later one says was durable keeps the member from starting, as `LogCorrupt`
does; such a member is lost.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from holdfast.kv.store import MemoryStore
from holdfast.machine import Genesis, applied
from holdfast.member.recovery import Replay, fit
from holdfast.raft.log import Log
from holdfast.raft.types import DurableAppend


class Disk:
    """Files of one member."""

    def __init__(self, chance: Random, genesis: Genesis | None) -> None:
        self._chance = chance
        self.state = MemoryStore()  # as the last flush left it
        if genesis is not None:
            genesis.write(self.state)
            self.durable = Replay([DurableAppend(0, None, 0, (), base=(1, 1))])
        else:
            self.durable = Replay([DurableAppend(0, None, 0, ())])
        self.state_index = applied(self.state)[0]
        self.unsynced: list[DurableAppend] = []
        self.records = 0
        self.lost = False  # lost or rotten: this member never starts again
        self.rotten = False

    def keep_state(self, store: MemoryStore) -> None:
        """A flush, or a snapshot put in use: a crash from now on returns to this state."""
        self.state = store
        self.state_index = applied(store)[0]

    def crashed(self, after_sync: bool) -> bool:
        """The process has crashed. Keep some of what was not synced (`after_sync`: all of it). Returns whether a
        record was torn."""
        unsynced, self.unsynced = self.unsynced, []
        keep = len(unsynced) if after_sync else self._chance.randrange(len(unsynced) + 1)
        for record in unsynced[:keep]:
            self.feed(record)
        if keep < len(unsynced) and len(unsynced[keep].entries) > 1 and self._chance.random() < 0.5:
            record = unsynced[keep]
            cut = 1 + self._chance.randrange(len(record.entries) - 1)
            self.feed(replace(record, entries=record.entries[:cut]))
            return True
        return False

    def feed(self, record: DurableAppend) -> None:
        self.records += 1
        self.durable.feed(record)

    def synced(self, count: int) -> None:
        for record in self.unsynced[:count]:
            self.feed(record)
        del self.unsynced[:count]

    def open(self) -> tuple[MemoryStore, Log]:
        """What a start finds: the state, and the log that belongs to it."""
        store = self.state.snapshot()
        durable = self.durable.log
        log = Log(durable.base_index, durable.base_term, durable.since(durable.first))
        index, term = applied(store)
        if fit(log, index, term):
            durable.reset(index, term)
        return store, log
