"""The files of a member, opened: its state, its log, and how they fit together."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from holdfast.machine import Genesis, applied
from holdfast.member.recovery import Replay, fit
from holdfast.raft.log import Log
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.log import DurableLog
from holdfast.storage.state import RocksStore, StateDirectory


@dataclass(slots=True)
class Disk:
    """What `open_disk` found. The durable log is ready to be appended to."""

    store: RocksStore
    states: StateDirectory
    durable: DurableLog
    log: Log
    hard_state: HardState


def found_cluster(path: Path, genesis: Genesis) -> None:
    """Write the state that a new cluster begins with. Repeatable: the identity, written last, makes it count."""
    for part in ("log", "state"):
        shutil.rmtree(path / part, ignore_errors=True)
    states = StateDirectory(path / "state")
    place = states.fresh()
    store = RocksStore(place)
    genesis.write(store)
    store.flush()
    store.close()
    states.use(place)
    durable = DurableLog(path / "log")
    for _ in durable.replay():
        raise AssertionError("a new log is not empty")
    durable.append([DurableAppend(0, HardState(term=1), 0, (), base=(1, 1))])
    durable.close()


def open_disk(path: Path) -> Disk:
    """Recover a member. Raises LogCorrupt, or an invariant's violation, if what is there cannot be trusted."""
    states = StateDirectory(path / "state")
    place = states.current()
    if place is None:
        place = states.fresh()
        RocksStore(place).close()
        states.use(place)
    store = RocksStore(place)
    durable = DurableLog(path / "log")
    replay = Replay(durable.replay())
    index, term = applied(store)
    if fit(replay.log, index, term):
        durable.append([DurableAppend(0, replay.hard_state, 0, (), base=(index, term))])
    return Disk(store, states, durable, replay.log, replay.hard_state)
