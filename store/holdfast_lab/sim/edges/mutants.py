"""Relays broken on purpose, one rule for each mutant, to show that the simulated replicas notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.edge.core import ReplicaCore
from holdfast.edge.data import ReplicaData
from holdfast.edge.filling import Filling
from holdfast.edge.frames import RevisionFrames
from holdfast.edge.holding import Holding, joined
from holdfast.edge.lineage import Lineage, Relation
from holdfast.edge.notes import Notes
from holdfast.edge.outbox import Outbox
from holdfast.edge.probes import Confirmed, Probes
from holdfast.edge.upstream import Upstream
from holdfast.keyrange import Range, prefix_end, within
from holdfast.kv import copied
from holdfast.kv.copied import CopiedSpace
from holdfast.kv.store import Store
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.reported import Known, Place, transaction
from holdfast.watch.hub import Hub
from holdfast.watch.watcher import Watcher

from holdfast_lab.sim.edges import reports
from holdfast_lab.sim.mutation import Mutants, Patch, registering

EDGE_MUTANTS: Mutants = {}
_mutant = registering(EDGE_MUTANTS)


# ---- how old the data can be -------------------------------------------------------------------------------


@_mutant("the probe of a replica below is answered by one that is sent after it came")
def _old_probe_answers_a_child(patch: Patch) -> None:
    answered = Probes.answered

    def note(self: Any, id: int, revision: int) -> None:
        self.last = revision
        answered(self, id, revision)

    def confirm(self: Any, confirmed: Confirmed) -> None:
        if self.fresh_at is not None:
            confirmed(self.last)

    patch(Probes, "answered", note)
    patch(Probes, "confirm", confirm)


@_mutant("a probe that is under way does not answer for a replica below")
def _probe_under_way_answers_a_child(patch: Patch) -> None:
    original = Probes.confirm

    def confirm(self: Probes, confirmed: Confirmed) -> None:
        if self.outstanding:
            self._sent[self.newest][1].append(confirmed)
        else:
            original(self, confirmed)

    patch(Probes, "confirm", confirm)


@_mutant("the age counts from when the probe was sent, not from its answer")
def _age_counts_from_later(patch: Patch) -> None:
    original = Probes.send

    def send(self: Probes, now: int) -> int:
        return original(self, now + 100_000_000)

    patch(Probes, "send", send)


@_mutant("an answered probe counts when its revision is here")
def _age_counts_before_the_data_is_here(patch: Patch) -> None:
    original = Probes.reached

    def reached(self: Probes, watermark: int, lineage: Lineage) -> None:
        original(self, max([watermark, *(revision for revision, _ in self._answered)]), lineage)

    patch(Probes, "reached", reached)


@_mutant("a replica is told of progress when everything up to it was sent")
def _progress_before_the_change(patch: Patch) -> None:
    def progress(self: Upstream) -> list[bytes]:
        revision = self._source.space.revision
        if not self._following or self._frames is not None or revision <= self._told:
            return []
        self._told = revision
        return self._progress_frame()

    patch(Upstream, "_progress", progress)


# ---- the tree ----------------------------------------------------------------------------------------------


@_mutant("a replica follows nobody that follows it")
def _loops_are_not_noticed(patch: Patch) -> None:
    def follows(self: ReplicaCore, path: holdfast_pb2.FollowPath) -> None:
        self.path = holdfast_pb2.FollowPath(nodes=[self.node, *path.nodes][:9], cut_off=path.cut_off)

    patch(ReplicaCore, "follows", follows)


@_mutant("replicas are told when the way to the cluster changes")
def _path_is_told_once(patch: Patch) -> None:
    def new_path(self: Upstream) -> list[bytes]:
        self._path = self._source.path
        return []

    patch(Upstream, "_new_path", new_path)


@_mutant("a replica feeds those only whose prefixes it has")
def _feeds_what_it_lacks(patch: Patch) -> None:
    patch(ReplicaCore, "covers", lambda self, start, end: True)


@_mutant("a replica's history begins after its snapshot, which lacks the deletions of its revision")
def _history_includes_the_snapshot(patch: Patch) -> None:
    patch(CopiedSpace, "history_from", property(lambda self: self.compacted))


# ---- other prefixes ----------------------------------------------------------------------------------------


@_mutant("a part that has arrived is shown when the rest is as new as it")
def _part_is_shown_early(patch: Patch) -> None:
    patch(Holding, "shown", lambda self, watermark: joined((part.low, part.high) for part in self.parts))


@_mutant("a change that came with a part is not applied again")
def _part_is_changed_twice(patch: Patch) -> None:
    patch(Holding, "takes", lambda self, key, revision: any(within(key, p.low, p.high) for p in self.parts))


@_mutant("a part has no history from before it arrived")
def _part_has_the_history_of_the_rest(patch: Patch) -> None:
    original = ReplicaData._arrive

    def arrive(self: ReplicaData, position: Any) -> Any:
        original(self, position)
        return position

    patch(ReplicaData, "_arrive", arrive)


@_mutant("what belongs to the prefixes no more is given up")
def _old_prefixes_are_kept(patch: Patch) -> None:
    patch(ReplicaData, "_narrow", lambda self, held: held)


@_mutant("a replica with other prefixes is complete only for what it had")
def _all_prefixes_are_taken_for_complete(patch: Patch) -> None:
    def narrow(self: ReplicaData, held: Holding) -> Holding:
        return Holding.of(self.intervals) if held.parts else held

    patch(ReplicaData, "_narrow", narrow)


@_mutant("the rows of a part that arrives do not displace those of the same revisions")
def _part_displaces_rows(patch: Patch) -> None:
    patch(copied, "PART_SUB", 0)


# ---- snapshots that break off -------------------------------------------------------------------------------


@_mutant("a chunk covers what it brings, and nothing after its last key")
def _chunk_covers_too_much(patch: Patch) -> None:
    original = Filling._chunk

    def chunk(self: Filling, kvs: list[bytes], covered: Range) -> bytes:
        low, high = covered
        if high is not None and high.endswith(b"\x00"):
            high = prefix_end(high[:-1])  # the key and those that begin with it
            high = high[:-1] + bytes([high[-1] + 1])  # and the next one
        return original(self, kvs, (low, high))

    patch(Filling, "_chunk", chunk)


@_mutant("what is held of a snapshot that broke off is brought up to date before the rest comes")
def _resumed_part_stays_old(patch: Patch) -> None:
    original = Upstream._watcher

    def watcher(self: Upstream, revision: int) -> Watcher:
        return original(self, self._source.space.revision + 1 if self._due else revision)

    patch(Upstream, "_watcher", watcher)


@_mutant("what is built beside what is served takes its place when it is whole")
def _built_is_served_early(patch: Patch) -> None:
    patch(ReplicaCore, "built", property(lambda self: self._next is not None and bool(self._next.shown)))


@_mutant("what an earlier connection brought is given up if history does not lead on from it")
def _built_goes_on_from_anywhere(patch: Patch) -> None:
    original = ReplicaCore.build

    def build(self: ReplicaCore, store: Store) -> None:
        if self._next is None:
            original(self, store)
        self.wants_store = False

    patch(ReplicaCore, "build", build)


@_mutant("a snapshot of everything is not mixed with what is served")
def _snapshot_is_built_in_place(patch: Patch) -> None:
    def build(self: ReplicaCore, store: Store) -> None:
        self.wants_store = False
        self.here._holding = Holding()

    patch(ReplicaCore, "build", build)


@_mutant("changes of what is lacking come with its snapshot")
def _changes_of_what_is_lacking(patch: Patch) -> None:
    original = Holding.takes

    def takes(self: Holding, key: bytes, revision: int) -> bool:
        return original(self, key, revision) or not any(within(key, p.low, p.high) for p in self.parts)

    patch(Holding, "takes", takes)


@_mutant("what is noted besides the data goes over to what takes its place")
def _notes_stay_behind(patch: Patch) -> None:
    patch(ReplicaData, "take_notes", lambda self, other: None)


# ---- a cluster that is restored ----------------------------------------------------------------------------


@_mutant("a replica goes over to a restored cluster by a snapshot, never from its watermark")
def _continues_across_a_restore(patch: Patch) -> None:
    patch(Upstream, "_same_history", lambda self, start: True)
    patch(ReplicaCore, "_check_lineage", lambda self, hello: None)


@_mutant("the cluster before a restore is followed no more")
def _goes_back_to_the_cluster_before(patch: Patch) -> None:
    patch(Upstream, "_check_lineage", lambda self, start: None)
    patch(ReplicaCore, "_check_lineage", lambda self, hello: None)
    patch(ReplicaCore, "superseded", property(lambda self: _relation_to_upstream(self) is not Relation.SAME))


def _relation_to_upstream(core: ReplicaCore) -> Relation:
    hello, here = core._hello, core.position.lineage
    if hello is None or not here.cluster_id:
        return Relation.SAME
    return Lineage.of(hello.cluster_id, hello.epoch, hello.lineage).relation(here)


@_mutant("what was known of the age of the cluster before a restore does not count after it")
def _age_is_kept_across_a_restore(patch: Patch) -> None:
    patch(Probes, "_same", lambda self, lineage: True)


@_mutant("a revision of the history before a restore is not sent to those that follow the one after it")
def _frames_of_the_history_before(patch: Patch) -> None:
    original = RevisionFrames.frame

    def frame(self: Any, ranges: Any, epoch: int, term: int, changes: Any, previous: int) -> bytes:
        return original(self, ranges, 0, 0, changes, previous)

    patch(RevisionFrames, "frame", frame)


@_mutant("who follows a replica that goes over to a restored cluster has to begin anew")
def _streams_continue_across_a_restore(patch: Patch) -> None:
    patch(Hub, "begin_anew", Hub.replace_space)
    patch(Upstream, "_check_same", lambda self: None)


# ---- reports -----------------------------------------------------------------------------------------------


@_mutant("a report is durable at its node before it is delivered")
def _delivered_before_it_is_durable(patch: Patch) -> None:
    patch(reports.SimReports, "_make_durable", lambda self: None)


@_mutant("a batch that is older than one that is in changes nothing")
def _old_batch_is_taken(patch: Patch) -> None:
    def taken(batches: Any, known: Mapping[str, Known]) -> rpc_pb2.TxnRequest | None:
        return transaction(batches, {node: Known(Place(0, 0), at.revision) for node, at in known.items()})

    patch(reports, "transaction", taken)


@_mutant("a batch is entered if no other one of its node has come in between")
def _batch_between_is_not_noticed(patch: Patch) -> None:
    def blind(batches: Any, known: Mapping[str, Known]) -> rpc_pb2.TxnRequest | None:
        txn = transaction(batches, known)
        if txn is not None:
            txn.ClearField("compare")
        return txn

    patch(reports, "transaction", blind)


@_mutant("what was reported while a batch was under way still waits")
def _all_is_taken_for_delivered(patch: Patch) -> None:
    delivered = Outbox.delivered

    def all_of_them(self: Outbox, batch: holdfast_pb2.ReportedBatch) -> None:
        delivered(self, holdfast_pb2.ReportedBatch(seq=1 << 62))

    patch(Outbox, "delivered", all_of_them)


@_mutant("a batch has all that is not acknowledged")
def _batch_has_the_last_report(patch: Patch) -> None:
    batch = Outbox.batch

    def last(self: Outbox) -> holdfast_pb2.ReportedBatch | None:
        found = batch(self)
        if found is not None:
            del found.entries[:-1]
        return found

    patch(Outbox, "batch", last)


@_mutant("batches of a later start are later")
def _starts_are_not_counted(patch: Patch) -> None:
    original = Outbox.__init__

    def init(self: Outbox, notes: Notes, node: str, incarnation: int) -> None:
        original(self, notes, node, 1)

    patch(Outbox, "__init__", init)
