"""A cell that is a cluster of simulated members, with the faults of the simulation of members: messages and power are
lost, members crash, leaders change.

Its world has a time of its own, in which it is brought up to the time of the loop whenever one of its events is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from holdfast.cells.clock import now
from holdfast.kv.space import KeySpace
from holdfast.member.interface import Answer, KeepAlive, Propose
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.status import Code

from holdfast_lab.sim.cells.cell import Answered
from holdfast_lab.sim.mix import SECOND, draw
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.simulation import FAILURES, Run
from holdfast_lab.sim.world import World

PATIENCE_NS = 3 * SECOND
# Faults after which a cluster needs its operator, and others that the members' own simulation is about.
WITHOUT = (
    *("rot", "state_rot", "lose_disk", "sync_error", "full", "crash_loop"),
    *("change", "rolling", "misuse", "sequences"),
)
_REFUSED = (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE)


class _Members(Run):
    """Three members without clients of their own."""

    def __init__(self, seed: int) -> None:
        mix = draw(World(seed).chance("mix"), WITHOUT)
        super().__init__(seed, mix=replace(mix, voters=3, learners=0, replicas=0, clients=0, caches=0), history=False)
        self.checker.values_are_unique = False

    def go_on(self, until: int) -> None:
        self.world.run_until(max(until, self.world.now))  # also what is due now

    def ask(self, item: Propose | KeepAlive, node: Node, answered: Callable[[Answer], None]) -> None:
        self.ledger.ask(node, item, lambda _, answer: answered(answer))

    def heal(self) -> None:
        """No faults any more."""
        self.nemesis.stop()
        self.network.heal()
        for node in self.nodes.values():
            self._well(node)

    def check_end(self) -> None:
        """Its members agree. Time goes on for them alone."""
        self._heal_all()
        self._check_end()


class MemberCell:
    """`failed` is called with what the members have violated."""

    def __init__(self, name: str, cluster_id: int, seed: int, failed: Callable[[BaseException], None]) -> None:
        self.name = name
        self.cluster_id = cluster_id
        self.up = True
        self._failed = failed
        self._members = _Members(seed)
        self._chance = self._members.world.chance("cell")
        self._timer: asyncio.TimerHandle | None = None
        self._last_lease = 0
        self._go_on()

    @property
    def space(self) -> KeySpace | None:
        """What a member has applied that is as far as any; None: none is up."""
        cores = [node.core for node in self._members.nodes.values() if node.core is not None]
        return max(cores, key=lambda core: core.machine.applied_index).machine.space if cores else None

    def _go_on(self, due: int = 0) -> None:
        """Bring the members up to now, and again when their next event is due. `due`: when that is now; the loop's
        time is rounded."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._members.go_on(max(due, int(now() * 1e9)))
        except FAILURES as error:
            self._failed(error)
            return
        next_due = self._members.world.due
        if next_due is not None:
            self._timer = asyncio.get_running_loop().call_at(next_due / 1e9, self._go_on, next_due)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def heal(self) -> None:
        self._members.heal()
        self._go_on()

    def check_end(self) -> None:
        self.stop()
        self._members.check_end()

    # ---- as a cell -----------------------------------------------------------------------------------------

    def execute(self, request: rpc_pb2.TxnRequest, answered: Answered[rpc_pb2.TxnResponse]) -> None:
        def done(answer: Answer) -> None:
            if isinstance(answer.response, rpc_pb2.TxnResponse):
                answer.response.header.cluster_id = self.cluster_id
                answer.response.header.revision = answer.revision
                answered(answer.response)
            elif answer.error is not None and answer.error.code in _REFUSED:
                answered(answer.error)

        self._propose(raft_pb2.Command(txn=request), done)

    def _propose(self, command: raft_pb2.Command, done: Callable[[Answer], None]) -> None:
        self._ask(lambda id, deadline: Propose(id, command, deadline), done)

    def _ask(self, item: Callable[[int, int], Propose | KeepAlive], done: Callable[[Answer], None]) -> None:
        """Ask any member that is up. What is not answered may have taken effect."""
        self._go_on()
        members = self._members
        up = [node for node in members.nodes.values() if node.up]
        if not up:
            return
        node = self._chance.choice(up)
        deadline = node.clock.local(members.world.now) + PATIENCE_NS
        members.ask(item(members.ledger.next_id(), deadline), node, done)
        self._go_on()

    def grant(self, ttl: int, answered: Answered[int]) -> None:
        self._last_lease += 1
        id = self._last_lease

        def done(answer: Answer) -> None:
            if answer.error is None:
                answered(id)

        self._propose(raft_pb2.Command(lease_grant=raft_pb2.LeaseGrant(id=id, ttl_seconds=ttl)), done)

    def renew(self, lease: int, ttl: int, answered: Answered[bool]) -> None:
        def done(answer: Answer) -> None:
            if answer.error is None:
                answered(answer.ttl > 0)

        self._ask(lambda id, deadline: KeepAlive(id, lease, False, deadline), done)

    def revoke(self, lease: int, answered: Answered[None]) -> None:
        def done(answer: Answer) -> None:
            if answer.error is None or answer.error.code is Code.NOT_FOUND:
                answered(None)

        self._propose(raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=lease)), done)
