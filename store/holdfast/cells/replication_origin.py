"""Where the data of a source comes from: nothing is replicated to where it came from.

A source's own records are read when it is followed, and then followed together with the data: that of a replication
into the source is written in the same revision as the data that it brings, or before it. So who replicates on learns
where data comes from no later than the data itself.

Of replications that are started at the same moment and would close a loop, each is claimed by a record first. Then the
records of all cells that lead to its source are read: the last one to claim finds the others, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.cells.errors import NotSetUp
from holdfast.cells.followed import Changes
from holdfast.cells.identity import Identity
from holdfast.cells.links import Links
from holdfast.cells.replicated import records
from holdfast.cells.replication_record import REPLICATION, Record, Upstream, shown
from holdfast.client.errors import ClientError


class Origin:
    """Of the data of `prefix` at `source`. `destination`: the identity of the cell that it is replicated to."""

    def __init__(self, links: Links, source: str, destination: Identity, prefix: bytes, timeout: float) -> None:
        self._links = links
        self._source = source
        self._destination = destination.cell
        self._own = destination.cluster_id
        self._set = destination.set
        self._prefix = prefix
        self._timeout = timeout
        self._upstream = Upstream(source, prefix)
        self._learnt = 0  # the revision of the source at which its records were read

    def path(self, cluster_id: int) -> tuple[int, ...]:
        """The path of the data at the destination. `cluster_id`: of the source."""
        return self._upstream.path(cluster_id)

    async def learn(self) -> None:
        """Read the records of the source. Raises ReplicationLoop."""
        there = await records(self._links, self._source, self._timeout)
        self._upstream = Upstream(self._source, self._prefix)
        self._upstream.learn(there.records)
        self._learnt = there.revision
        self._upstream.check(self._destination, self._own)

    def take(self, changes: Changes) -> Mapping[bytes, bytes | None]:
        """Learn of the source's records that have changed, and return the other changes. Raises ReplicationLoop."""
        own = {key.removeprefix(REPLICATION): value for key, value in changes.writes.items() if _is_record(key)}
        if not own:
            return changes.writes
        if changes.revision > self._learnt:
            try:
                self._upstream.learn(
                    {key: None if value is None else Record.unpacked(value) for key, value in own.items()}
                )
            except ValueError as error:
                raise ClientError(f"{self._source} has something else below {shown(REPLICATION)}: {error}") from error
            self._upstream.check(self._destination, self._own)
        return {key: value for key, value in changes.writes.items() if not _is_record(key)}

    async def check_all(self) -> None:
        """Raise ReplicationLoop if a replication that leads to the source, over whichever cells of the set, begins at
        the destination, or is claimed to. All of these cells have to answer: raises ClientError if one does not."""
        cells, looked = [self._source], set[str]()
        while cells:
            cell = cells.pop()
            if cell in looked or cell not in self._set.all:
                continue
            if cell not in self._links.clients:
                raise NotSetUp(f"{cell} has to be asked where its data comes from, and no endpoints of it are given")
            looked.add(cell)
            upstream = Upstream(cell, self._prefix)
            upstream.learn((await records(self._links, cell, self._timeout)).records)
            upstream.check(self._destination, self._own, claims=True)
            cells += [record.source for record in upstream.records.values()]


def _is_record(key: bytes) -> bool:
    return key.startswith(REPLICATION)
