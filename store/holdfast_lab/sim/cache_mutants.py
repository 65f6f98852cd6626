"""The rules of consistent caches broken on purpose, one for each mutant: those of leaders, and those of holders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from holdfast.client.copy_lease import CopyLease
from holdfast.keyrange import Range
from holdfast.machine import Machine
from holdfast.member import cachable_zones, cache_leases
from holdfast.member.cache_leases import Asked, CacheLeases
from holdfast.member.core import MemberCore
from holdfast.member.interface import CacheGiven
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.types import Settings

from holdfast_lab.sim.mutation import Mutants, Patch, registering

CACHE_MUTANTS: Mutants = {}
_mutant = registering(CACHE_MUTANTS)

# ---- the leader ------------------------------------------------------------------------------------------------


@_mutant("copies are invalidated before the append, not after the commit")
def _invalidate_after_commit(patch: Patch) -> None:
    give = CacheLeases.give

    def holds_back(self: CacheLeases, *_: object) -> bool:
        return False

    def give_after_invalidating(self: CacheLeases, machine: Machine, now: int) -> list[CacheGiven]:
        told: list[CacheGiven] = []
        for zone in self._by_prefix.values():
            if zone.changing and machine.applied_index >= zone.changing:
                self._invalidate(zone, now, told)
                zone.changing = 0
        return told + give(self, machine, now)

    patch(CacheLeases, "holds_back", holds_back)
    patch(CacheLeases, "give", give_after_invalidating)


@_mutant("a command waits for every copy that has to be invalidated")
def _invalidated_without_waiting(patch: Patch) -> None:
    original = CacheLeases._invalidate

    def invalidate(self: CacheLeases, zone: cache_leases._Zone, now: int, out: list[CacheGiven]) -> None:
        original(self, zone, now, out)
        for holder in zone.holders.values():
            holder.until = 0

    patch(CacheLeases, "_invalidate", invalidate)


@_mutant("a new leader waits for the leases of the one before")
def _new_leader_does_not_wait(patch: Patch) -> None:
    original = CacheLeases.promote

    def promote(self: CacheLeases, machine: Machine, unapplied: Iterable[Entry], start: int, now: int) -> None:
        original(self, machine, unapplied, start, now - self._drifted_ns)

    patch(CacheLeases, "promote", promote)


@_mutant("no lease is given while a change is on its way")
def _lease_given_amid_a_change(patch: Patch) -> None:
    original = CacheLeases.give

    def give(self: CacheLeases, machine: Machine, now: int) -> list[CacheGiven]:
        for zone in self._by_prefix.values():
            zone.changing = 0
        return original(self, machine, now)

    patch(CacheLeases, "give", give)


@_mutant("a lease is given only by who still leads")
def _lease_without_a_quorum(patch: Patch) -> None:
    original = CacheLeases.to_confirm

    def to_confirm(self: CacheLeases, now: int) -> tuple[Asked, ...]:
        self.confirmed(original(self, now))
        return ()

    patch(CacheLeases, "to_confirm", to_confirm)


@_mutant("the leader waits for the holder's time and the drift of its clock")
def _lease_ends_too_early(patch: Patch) -> None:
    original = CacheLeases.__init__

    def init(self: CacheLeases, settings: Settings) -> None:
        original(self, settings)
        self._drifted_ns = self._lease_ns * 92 // 100

    patch(CacheLeases, "__init__", init)


@_mutant("a lost connection does not end a lease")
def _lost_holder_forgotten(patch: Patch) -> None:
    original = CacheLeases.release

    def release(self: CacheLeases, id: int, now: int, *, done: bool, excused: bool = False) -> None:
        original(self, id, now, done=True)

    patch(CacheLeases, "release", release)


@_mutant("the end of a lease changes the keys that are attached to it")
def _keys_of_a_lease_unseen(patch: Patch) -> None:
    original = CacheLeases.touched

    def touched(self: CacheLeases, command: raft_pb2.Command, machine: Machine) -> list[cache_leases._Zone]:
        return [] if command.HasField("lease_revoke") else original(self, command, machine)

    patch(CacheLeases, "touched", touched)


@_mutant("a delete changes keys, too")
def _deletes_unseen(patch: Patch) -> None:
    original = cachable_zones.written

    def written(command: raft_pb2.Command) -> Iterator[Range]:
        if not command.HasField("delete_range"):
            yield from original(command)

    patch(cache_leases, "written", written)


@_mutant("a prefix is not cachable any more only after its copies are invalid")
def _prefix_taken_back_at_once(patch: Patch) -> None:
    original = cachable_zones.written

    def written(command: raft_pb2.Command) -> Iterator[Range]:
        if not command.HasField("cachable"):
            yield from original(command)

    patch(cache_leases, "written", written)


@_mutant("a lease after a change names the revision after it")
def _revision_kept_over_a_change(patch: Patch) -> None:
    give = CacheLeases._give

    def give_old(self: CacheLeases, holder: cache_leases._Holder, revision: int, now: int) -> list[CacheGiven]:
        given = give(self, holder, revision, now)
        for item in given:
            item.revision = 1
        return given

    patch(CacheLeases, "_give", give_old)


@_mutant("who was elected in this turn waits, too")
def _elected_leader_appends_at_once(patch: Patch) -> None:
    original = MemberCore._append

    def append(self: MemberCore, *arguments: Any) -> None:
        was, self._was = self._was, (self.raft.role, self.raft.term, self.raft.leader)
        original(self, *arguments)
        self._was = was

    patch(MemberCore, "_append", append)


# ---- the holder ------------------------------------------------------------------------------------------------


@_mutant("a copy is invalid before that is acknowledged")
def _acknowledged_before_it_is_invalid(patch: Patch) -> None:
    original = CopyLease.take

    def take(self: CopyLease, response: holdfast_pb2.CacheHoldResponse) -> bool:
        until = self.until
        acknowledge = original(self, response)
        self.until = max(until, self.until)
        return acknowledge

    patch(CopyLease, "take", take)


@_mutant("a lease counts from the sending of its request")
def _lease_counted_from_the_answer(patch: Patch) -> None:
    original = CopyLease.take

    def take(self: CopyLease, response: holdfast_pb2.CacheHoldResponse) -> bool:
        acknowledge = original(self, response)
        if response.number:
            self.until = math.inf  # until the next look at the clock
        return acknowledge

    def valid(self: CopyLease, now: float) -> bool:
        if self.until == math.inf:
            self.until = now + self.lease
        return now < self.until

    patch(CopyLease, "take", take)
    patch(CopyLease, "valid", valid)


@_mutant("a copy is as new as its lease before it is read")
def _copy_older_than_its_lease(patch: Patch) -> None:
    patch(CopyLease, "current", lambda self, copy, now, cluster_id=0: self.valid(now))
