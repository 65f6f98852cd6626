"""What the programs of a node have reported, until the cluster has it: on the replica's disk, the newest of each key.

Reports have places in an order, (incarnation, seq). The incarnation is the number of the replica's start, so the order
grows also if the last reports of an earlier start were lost with its power. A batch has all that is not acknowledged:
so the cluster may drop any batch that is older than one it has, however they arrive. A batch is made durable here
before it is delivered: otherwise a power cut could bring back a report that the cluster has replaced.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.edge.notes import Notes
from holdfast.proto import holdfast_pb2
from holdfast.reported import MAX_KEYS
from holdfast.status import Code, Refusal, RequestError

_ENTRY = b"outbox/"


class Outbox:
    """The reports of one node."""

    def __init__(self, notes: Notes, node: str, incarnation: int) -> None:
        self._notes = notes
        self._node = node
        self.incarnation = incarnation
        self._seq = 0
        self._entries: dict[str, holdfast_pb2.ReportedEntry] = {}
        for key, value in notes.scan(_ENTRY):
            entry = holdfast_pb2.ReportedEntry.FromString(value)
            entry.seq = 0  # of an earlier start: before all of this one
            self._entries[key.decode()] = entry

    @property
    def empty(self) -> bool:
        return not self._entries

    @property
    def keys(self) -> Iterable[str]:
        return self._entries.keys()

    def waits(self, key: str) -> bool:
        """Whether a report with this key is not delivered yet."""
        return key in self._entries

    def put(self, entry: holdfast_pb2.ReportedEntry) -> int:
        """Take a report, in the place of an earlier one with its key. Returns its number. Raises RequestError if too
        many wait."""
        if entry.key not in self._entries and len(self._entries) >= MAX_KEYS:
            text = f"holdfast: {MAX_KEYS} reports of {self._node} wait to be delivered; report under keys of those"
            raise RequestError(Refusal(Code.RESOURCE_EXHAUSTED, text))
        self._seq += 1
        entry.seq = self._seq
        self._entries[entry.key] = entry
        self._notes.put(_ENTRY + entry.key.encode(), entry.SerializeToString())
        return self._seq

    def batch(self) -> holdfast_pb2.ReportedBatch | None:
        """All that waits; None if nothing does."""
        if not self._entries:
            return None
        return holdfast_pb2.ReportedBatch(
            node=self._node, incarnation=self.incarnation, seq=self._seq, entries=self._entries.values()
        )

    def delivered(self, batch: holdfast_pb2.ReportedBatch) -> None:
        """The cluster has this batch, or a later one. What was reported meanwhile still waits."""
        for key in [key for key, entry in self._entries.items() if entry.seq <= batch.seq]:
            del self._entries[key]
            self._notes.put(_ENTRY + key.encode(), None)
