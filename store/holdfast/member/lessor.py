"""The leader's part of leases: what to propose for them, and which renewals may be acknowledged.

It proposes and sends nothing itself: it returns commands and answers, and the member proposes and sends them. A renewal
is acknowledged once three things are true: a round of heartbeats confirmed that this member still leads; everything
committed before that is applied, because it may include the lease's revocation; and no checkpoint of the lease is in
force, because the next leader would give it less time than was acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from holdfast.machine import LeaseEvent, Machine
from holdfast.member.lease_clock import LeaseClock
from holdfast.member.messages import Renew
from holdfast.proto import raft_pb2
from holdfast.raft.types import Settings

MAX_REVOKED = 100  # per turn
MAX_CHECKPOINTED = 1000


def shortest_ttl(settings: Settings) -> int:
    """In seconds. A lease shorter than one and a half election timeouts would expire at every change of leader."""
    return -(-3 * settings.election_ns // 2_000_000_000)


class Renewals(NamedTuple):
    """What to do now for the waiting renewals."""

    answered: list[tuple[Renew, list[int]]]  # with each lease's TTL; 0 (for a query: -1) = expired
    commands: list[raft_pb2.Command]  # to propose, for those that keep waiting


class Lessor:
    """Handles leases while this member leads. Between `demote` and `promote` it does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.clock = LeaseClock(settings.lease_checkpoint_ns)
        self._waiting: deque[tuple[int, Renew]] = deque()  # (index to apply first, question)

    @property
    def deadline(self) -> int | None:
        """The earliest time at which `due` has something to propose."""
        return self.clock.deadline

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def promote(self, machine: Machine, now: int) -> None:
        self.demote()
        # How much of a lock-delay has passed is not known: the new leader waits in full.
        ends = {**machine.leases, **machine.delayed}
        self.clock.promote(ends, machine.remaining, now, self._settings.election_ns)

    def demote(self) -> None:
        """Forget everything. Members that wait for a renewal ask the next leader."""
        self._waiting.clear()
        self.clock.demote()

    def applied(self, event: LeaseEvent, now: int) -> None:
        """An entry that concerns leases was applied. If it cancelled checkpoints, it may come from an earlier leader,
        which may have acknowledged renewals after it."""
        for lease, ttl in event.ttls.items():
            if event.granted:
                self.clock.granted(lease, ttl, now)
            else:
                self.clock.extend(lease, ttl, now)

    def due(self, machine: Machine, now: int) -> list[raft_pb2.Command]:
        """Commands to propose: revocations of expired leases, and a checkpoint. Propose them now or never: proposed
        later, or by another leader, a revocation could end a lease that was renewed meanwhile (etcd issue 15247)."""
        commands: list[raft_pb2.Command] = []
        for lease in self.clock.expired(now, MAX_REVOKED, 20 * self._settings.election_ns):
            # Each command means one step, so that one that is proposed twice does not skip the delay.
            if lease in machine.leases:
                revoke = raft_pb2.LeaseRevoke(id=lease, expired=lease in machine.delays)
                commands.append(raft_pb2.Command(lease_revoke=revoke, system=True))
            elif lease in machine.delayed:
                revoke = raft_pb2.LeaseRevoke(id=lease, delay_over=True)
                commands.append(raft_pb2.Command(lease_revoke=revoke, system=True))
            else:
                self.clock.revoked(lease)
        checkpoints = self.clock.due_checkpoints(now, MAX_CHECKPOINTED)
        if checkpoints:
            commands.append(_checkpoint(checkpoints))
        return commands

    # ---- renewals ------------------------------------------------------------------------------------------

    def confirmed(self, index: int, question: Renew) -> None:
        """This member led after the question arrived. Answer it once `index` is applied."""
        self._waiting.append((index, question))

    def renewals(self, machine: Machine, now: int, next_index: int | None) -> Renewals:
        """`next_index`: the log index that the first command will get. None: nothing can be proposed now; questions
        that need a proposal are dropped, and their members ask again."""
        due: list[Renew] = []
        while self._waiting and self._waiting[0][0] <= machine.applied_index:
            due.append(self._waiting.popleft()[1])
        # Computed for all before any is answered, because two may renew the same lease.
        reduced = self._reduced(due, machine)
        done = Renewals([], [])
        for question in due:
            full = {} if question.query else {lease: 0 for lease in question.leases if lease in reduced}
            if not full:
                done.answered.append((question, self._ttls(question, machine, now)))
            elif next_index is not None:
                self._waiting.append((next_index + len(done.commands), question))
                done.commands.append(_checkpoint(full))
                for lease in full:
                    self.clock.taken_back(lease)
        return done

    def _reduced(self, due: list[Renew], machine: Machine) -> set[int]:
        """The leases to renew that have a checkpoint in force, or will have once it is applied."""
        renewed = {lease for question in due if not question.query for lease in question.leases}
        return {lease for lease in renewed if lease in machine.remaining or self.clock.checkpointed(lease)}

    def _ttls(self, question: Renew, machine: Machine, now: int) -> list[int]:
        ttls: list[int] = []
        for lease in question.leases:
            granted = machine.leases.get(lease)
            if question.query:
                left = self.clock.remaining(lease, now) if granted is not None else None
                ttls.append(-1 if left is None else left)
            elif granted is not None and self.clock.renew(lease, granted, now):
                ttls.append(granted)
            else:
                ttls.append(0)
        return ttls


def _checkpoint(seconds_left: dict[int, int]) -> raft_pb2.Command:
    checkpoint = raft_pb2.LeaseCheckpoint(ids=seconds_left.keys(), remaining_seconds=seconds_left.values())
    return raft_pb2.Command(lease_checkpoint=checkpoint, system=True)
