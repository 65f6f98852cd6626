"""The keys of a site in the store of the replica that writes them, and which of them the cluster does not know yet.

These keys are nowhere else, so a request is noted durably before it is applied, as an entry of a log is: what can be
read is durable, and after a power cut the requests that are noted are applied again, with the same revisions. A row of
the log goes in the batch of what its request has changed.

In that batch a mark comes, too, that the change has to be reported. It goes only when the report of that very revision
was delivered: whatever breaks in between is reported again, and the newest value is reported last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from holdfast.edge.data import Position, forget_position, note_position, position_in
from holdfast.edge.lineage import Lineage
from holdfast.edge.site_keys import MAX_KEYS, SiteKeys, puts_of
from holdfast.keyrange import bounds, prefix_end
from holdfast.kv import requests
from holdfast.kv.rows import Change
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, Pending, Store, StoreBusy
from holdfast.proto import kv_pb2, raft_pb2, rpc_pb2
from holdfast.status import Code, Refusal, RequestError

MAX_REVISIONS = 10_000  # of history, for watches and old reads
KEPT_REVISIONS = 5_000
_LINEAGE = b"local/lineage"
_LOG, _AFTER_LOG = b"local/log/", b"local/log0"
_DUE, _AFTER_DUE = b"local/due/", b"local/due0"


class Applied(NamedTuple):
    """What became of a request. `response` lacks its header."""

    response: Message
    changes: list[Change]


class Overlay:
    """The keys of one site, where they are written.

    A replica that held a copy and writes now goes on from what it has of it, as the next epoch of the same lineage: so
    the other replicas of the site go over to it by themselves."""

    def __init__(self, store: Store, keys: SiteKeys, id: int) -> None:
        """`id` (not 0) identifies the keys if they were not written here before, as a cluster id does. Raises StoreBusy
        if this store was not written here before, and takes nothing."""
        self._pending = Pending(store)
        self._keys = keys
        self.prefix = keys.prefix
        known = self._pending.get(Family.META, _LINEAGE)
        if known is None:
            self._begin(id)
        else:
            self.lineage = Lineage(*(int.from_bytes(known[i : i + 8], "big") for i in range(0, len(known), 8)))
        self.space = KeySpace(self._pending)
        self._noted = 0  # the number of the last row of the log
        self._repeat()

    def _begin(self, id: int) -> None:
        copied = position_in(self._pending)
        first = copied.first_cluster or copied.cluster_id
        self.lineage = Lineage.of(id, copied.epoch + 1, first, copied.watermark, copied.cluster_id)
        self._note_lineage()
        if copied.watermark:
            space = KeySpace(self._pending)
            if space.revision < copied.watermark:  # else these keys were written here before
                space.skip(self._pending, copied.watermark - space.revision)
            for key, _ in list(self._pending.scan(Family.CUR, b"", None)):
                self._pending.put(Family.META, _DUE + key, copied.watermark.to_bytes(8, "big"))
            forget_position(self._pending)
        self._pending.flush()

    def _repeat(self) -> None:
        """Apply what was noted, and perhaps not applied, before the end of the process."""
        for row, body in list(self._pending.scan(Family.META, _LOG, _AFTER_LOG)):
            self._noted = int.from_bytes(row[len(_LOG) :], "big")
            try:
                self.apply(self._noted, raft_pb2.Command.FromString(body))
            except RequestError:
                continue  # as it was refused before

    # ---- changes -------------------------------------------------------------------------------------------

    def note(self, commands: Sequence[raft_pb2.Command]) -> int | None:
        """Note requests (put, delete_range or txn). Make them durable, then `apply` each in this order. Returns the
        number of the first; None if the store takes nothing: then nothing was noted."""
        if not self.settle():
            return None
        first = self._noted + 1
        rows = [_row(number) for number in range(first, first + len(commands))]
        for row, command in zip(rows, commands, strict=True):
            self._pending.put(Family.META, row, command.SerializeToString())
        if not self.settle():
            for row in rows:
                self._pending.put(Family.META, row, None)
            return None
        self._noted += len(commands)
        return first

    def apply(self, number: int, command: raft_pb2.Command) -> Applied:
        """Apply a request that was noted under this number. Raises RequestError if it is refused."""
        self._pending.put(Family.META, _row(number), None)
        try:
            response = self._execute(command)
            changes = self.space.commit()
            for change in changes:
                self._pending.put(Family.META, _DUE + change.key, self.space.revision.to_bytes(8, "big"))
            if changes and self.space.revision > self.space.compacted + MAX_REVISIONS:
                self.space.compact(self.space.revision - KEPT_REVISIONS)
            return Applied(response, changes)
        finally:
            self.settle()

    def _execute(self, command: raft_pb2.Command) -> Message:
        kind = command.WhichOneof("op")
        if kind == "put":
            self._check_puts([command.put])
            return requests.put(self.space, (), command.put)
        if kind == "delete_range":
            return requests.delete_range(self.space, command.delete_range)
        self._check_puts(list(puts_of(command.txn)))
        return requests.txn(self.space, (), command.txn)

    def _check_puts(self, puts: list[rpc_pb2.PutRequest]) -> None:
        new = {put.key for put in puts if self.space.get(put.key) is None}
        if new and len(self.space.live) + len(new) > MAX_KEYS:
            text = f"holdfast: a site has at most {MAX_KEYS} keys; delete some below {self._keys.prefix.decode()}"
            raise RequestError(Refusal(Code.RESOURCE_EXHAUSTED, text))

    def settle(self) -> bool:
        """Retry what the store has refused. Returns whether it has everything now."""
        try:
            self._pending.flush()
        except StoreBusy:
            return False
        return True

    # ---- what has to be reported ---------------------------------------------------------------------------

    def due(self) -> dict[bytes, int]:
        """The keys whose newest change is not reported yet, each with the revision of that change."""
        rows = self._pending.scan(Family.META, _DUE, _AFTER_DUE)
        return {row[len(_DUE) :]: int.from_bytes(value, "big") for row, value in rows}

    def begin_later_epoch(self, id: int, epoch: int) -> None:
        """Another replica has what is not here, of a history up to `epoch`. Go on as the next epoch, so that it goes
        over to this one, and keeps what is not here."""
        before = self.lineage
        self.lineage = Lineage.of(
            id, max(before.epoch, epoch) + 1, before.first, self.space.revision, parent=before.cluster_id
        )
        self._note_lineage()
        self.report_again()

    def _note_lineage(self) -> None:
        self._pending.put(Family.META, _LINEAGE, b"".join(n.to_bytes(8, "big") for n in self.lineage))

    def report_again(self) -> None:
        """The cluster was restored, and may lack what was reported: all keys are due, also those that were deleted
        since the history here begins."""
        space = self.space
        deleted = {change.key for change, _, _ in space.history(space.compacted + 1, space.revision)}
        for key in {*space.keys(b"", None), *deleted}:
            self._pending.put(Family.META, _DUE + key, space.revision.to_bytes(8, "big"))
        self.settle()

    def value(self, key: bytes) -> bytes | None:
        """None: it is deleted."""
        now = self.space.get(key)
        return None if now is None else kv_pb2.KeyValue.FromString(now.kv).value

    def reported(self, key: bytes, revision: int) -> None:
        """The cluster knows this change of the key. If it has changed again, that is still due."""
        row = self._pending.get(Family.META, _DUE + key)
        if row is not None and int.from_bytes(row, "big") == revision:
            self._pending.put(Family.META, _DUE + key, None)
            self.settle()


def end_writing(store: Store, keys: SiteKeys) -> None:
    """Make what was written here a copy, if it is not one: another replica writes from now on. So this one notices that
    the other went on without what nobody had copied, as a replica does whose cluster was restored. Raises StoreBusy."""
    if store.get(Family.META, _LINEAGE) is None:
        return
    written = Overlay(store, keys, 0)
    lineage, space = written.lineage, written.space
    position = Position(
        cluster_id=lineage.cluster_id,
        epoch=lineage.epoch,
        watermark=space.revision,
        floor=max(1, space.compacted),
        history_from=space.compacted + 1,
        first_cluster=lineage.first,
        restored_from=lineage.restored_from,
        parent=lineage.parent,
    )
    pending = Pending(store)
    note_position(pending, position, [bounds(keys.prefix, prefix_end(keys.prefix))])
    for row, _ in list(store.scan(Family.META, _DUE, _AFTER_DUE)):
        pending.put(Family.META, row, None)
    pending.put(Family.META, _LINEAGE, None)
    pending.flush()


def _row(number: int) -> bytes:
    return _LOG + number.to_bytes(8, "big")
