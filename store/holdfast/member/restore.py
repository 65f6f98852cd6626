"""Creates a new cluster from a saved snapshot: one member with all of the data, which others can then join.

It has a new cluster id and a new member id, so that it is not mistaken for the cluster that was saved, and that
cluster's lineage with a later epoch, by which an edge replica knows that it has to follow this one from now on
(`edge.lineage`). The number of the epoch is the time of the restore (Unix ms): of two restores from the same snapshot
the second one is later. etcd's clients know no epochs. For them revisions continue far above the old ones and the
history before is compacted, so that no watch silently continues across the restore.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from holdfast.kv.store import StoreBusy
from holdfast.machine import Machine, Restored, ended_alarms
from holdfast.member.disk import make_log
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.storage.archive import ArchiveError, Manifest, unpack, verify
from holdfast.storage.files import NO_ROOM
from holdfast.storage.identity import DataDirectory, mint_id
from holdfast.storage.state import NoRoom, RocksStore, StateDirectory, StateUnreadable

BUMP = 1_000_000_000  # more than the revisions that any client can have seen beyond the snapshot


class RestoreRefused(Exception):
    """The data directory cannot be restored into, or the disk takes no more. The text says why."""


class Outcome(NamedTuple):
    revision: int  # of the snapshot
    ended_alarms: tuple[str, ...]  # that the saved cluster had, and the new one does not have


def restore(
    file: Path, directory: Path, name: str, peer_urls: tuple[str, ...], bump: int = BUMP, *, opened: bool = True
) -> Outcome:
    """Make `directory` the data directory of the only member of a new cluster with the snapshot's data. Unless
    `opened`, it serves clients only once it is told to (`Node/Open`). If it raises ArchiveError, DataDirectoryError or
    RestoreRefused, no member was made, and a directory in which it has begun is refused by `serve`."""
    manifest = verify(file)
    try:
        ended = _restore(file, manifest, directory, name, peer_urls, bump, opened=opened)
    except (OSError, StoreBusy, StateUnreadable) as error:
        room = isinstance(error, NoRoom) or (isinstance(error, OSError) and error.errno in NO_ROOM)
        why = "no room" if room else str(error)
        raise RestoreRefused(
            f"the restore into {directory} did not finish: {why}. Run it again once the disk takes it; until then "
            "`holdfast serve` refuses the directory"
        ) from error
    return Outcome(manifest.revision, ended)


def _restore(
    file: Path, manifest: Manifest, directory: Path, name: str, peer_urls: tuple[str, ...], bump: int, *, opened: bool
) -> tuple[str, ...]:
    """Returns the alarms that ended."""
    data = DataDirectory(directory, restoring=True)
    try:
        if data.identity.made:
            raise RestoreRefused(f"{directory} holds a member already; restore into an empty directory")
        making = data.begin_making()
        states = StateDirectory(making / "state")
        place = states.fresh()
        unpack(file, place)
        store = RocksStore(place)
        member_id = data.identity.volume_id
        info = raft_pb2.MemberInfo(id=member_id, name=name, peer_urls=peer_urls, volume_id=member_id)
        try:
            store.verify()  # the file's checksum does not cover damage at the member that saved it
            machine = Machine(store)
            _compare(file, manifest, machine)
            ended = tuple(f"{rpc_pb2.AlarmType.Name(alarm)} of member {id:x}" for id, alarm in ended_alarms(machine))
            index, term = Restored(info, bump, manifest.cluster_id, time.time_ns() // 1_000_000).write(machine)
            store.flush()
        finally:
            store.close()
        states.use(place)
        make_log(making, (index, term), term)
        data.join(cluster_id=mint_id(), member_id=member_id, opened=opened)  # last: this makes the member valid
    finally:
        data.close()
    return ended


def _compare(file: Path, manifest: Manifest, machine: Machine) -> None:
    """Refuse a manifest that is not of this state. The state does not hold the cluster's id."""
    position = {
        "epoch": machine.epoch,
        "revision": machine.space.revision,
        "index": machine.applied_index,
        "term": machine.applied_term,
    }
    for what, value in position.items():
        said = getattr(manifest, what)
        if said != value:
            raise ArchiveError(
                f"{file}: its manifest says {what} {said}, its state has {value}: it was changed after it was saved; "
                "use another snapshot"
            )
