"""Creates and opens a member's files: its state and its log, which have to fit together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.machine import Genesis, applied
from holdfast.member.recovery import Replay, fit
from holdfast.raft.invariant import invariant
from holdfast.raft.log import Log
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.damage import REPLACE
from holdfast.storage.identity import DataDirectory
from holdfast.storage.log import DurableLog, LogCorrupt
from holdfast.storage.peek import Rows, peek
from holdfast.storage.state import RocksStore, StateDirectory


@dataclass(slots=True)
class Disk:
    """What `open_disk` found. The durable log is ready to be appended to."""

    store: RocksStore
    states: StateDirectory
    durable: DurableLog
    log: Log
    hard_state: HardState


def found_cluster(data: DataDirectory, genesis: Genesis, cluster_id: int, *, opened: bool = True) -> None:
    """Become a founding member, with the first state of the new cluster. A crash leaves all of it or nothing."""
    place = data.begin_making()
    store, states = make_state(place)
    genesis.write(store)
    store.flush()
    store.close()
    states.use(store.path)
    make_log(place, (1, 1), 1)
    data.join(cluster_id=cluster_id, member_id=data.identity.volume_id, opened=opened)


def join_cluster(data: DataDirectory, cluster_id: int, member_id: int) -> None:
    """Become a member with an empty state and an empty log."""
    place = data.begin_making()
    store, states = make_state(place)
    store.flush()
    store.close()
    states.use(store.path)
    make_log(place, None, 0)
    data.join(cluster_id=cluster_id, member_id=member_id)


def make_state(place: Path) -> tuple[RocksStore, StateDirectory]:
    states = StateDirectory(place / "state")
    return RocksStore(states.fresh()), states


def make_log(place: Path, base: tuple[int, int] | None, term: int) -> None:
    """`base`: (index, term) of the entry after which the log begins."""
    durable = DurableLog(place / "log")
    durable.create()
    if base is not None:
        durable.append([DurableAppend(0, HardState(term=term), 0, (), base=base)])
    durable.close()


def open_disk(path: Path) -> Disk:
    """Recover a member. Raises Damaged, StateDamaged or InvariantViolation if the files cannot be trusted; then nothing
    was removed."""
    states = StateDirectory(path / "state")
    place = states.current()
    durable = DurableLog(path / "log")
    replay = Replay(durable.replay())
    index, term = peek(place, lambda db: applied(Rows(db)))
    if replay.log.base_index > index:
        raise LogCorrupt(
            f"{durable.directory}: the log begins after entry {replay.log.base_index}, but the state in {place} "
            f"ends at {index}: entries are missing; {REPLACE}"
        )
    ends = replay.log.last
    anew = fit(replay.log, index, term)
    if anew and states.installed not in (None, index):
        raise LogCorrupt(
            f"{durable.directory}: the log ends with entry {ends}, or has another entry {index} than the state in "
            f"{place}, which was written behind it: it is an older copy, or lost its end; {REPLACE}"
        )
    store = RocksStore(place)  # last: opening it writes, and removes unknown tables
    invariant(applied(store) == (index, term), f"{place} changed while it was opened")
    if anew:
        durable.append([DurableAppend(0, replay.hard_state, 0, (), base=(index, term))])
    states.clean()
    return Disk(store, states, durable, replay.log, replay.hard_state)
