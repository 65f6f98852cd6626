"""A cluster made anew from a saved snapshot: one member with all of the data, which others then join.

It is another cluster: new cluster id, new member id, and the next epoch, so that nobody takes it for the one that was
saved; a replica at the edge sees the epoch and starts again. etcd's clients know no epochs: for them revisions go on
well above the old ones, and history before that counts as compacted, so that no watch goes on as if nothing had been.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.machine import Restored
from holdfast.member.disk import make_log
from holdfast.proto import raft_pb2
from holdfast.storage.archive import Manifest, unpack, verify
from holdfast.storage.identity import DataDirectory, mint_id
from holdfast.storage.state import RocksStore, StateDirectory

BUMP = 1_000_000_000  # more revisions than anybody can have seen beyond the snapshot


class RestoreRefused(Exception):
    """The data directory cannot be restored into; says why."""


def restore(file: Path, directory: Path, name: str, peer_urls: tuple[str, ...], bump: int = BUMP) -> Manifest:
    """Make `directory` the data directory of the only member of a new cluster with the snapshot's data. Raises
    ArchiveError, DataDirectoryError or RestoreRefused, and then leaves no member behind."""
    manifest = verify(file)
    data = DataDirectory(directory)
    try:
        if data.identity.made:
            raise RestoreRefused(f"{directory} holds a member already; restore into an empty directory")
        making = data.begin_making()
        states = StateDirectory(making / "state")
        place = states.fresh()
        unpack(file, place)
        store = RocksStore(place)
        store.verify()  # the file's sum says nothing about what the member read that saved it
        member_id = data.identity.volume_id
        info = raft_pb2.MemberInfo(id=member_id, name=name, peer_urls=peer_urls, volume_id=member_id)
        index, term = Restored(info, bump).write(store)
        store.flush()
        store.close()
        states.use(place)
        make_log(making, (index, term), term)
        data.join(cluster_id=mint_id(), member_id=member_id)  # last: from here on it counts
    finally:
        data.close()
    return manifest
