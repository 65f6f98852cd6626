"""One run of applications on a cluster under faults; then all is healed, and everything has to come to its end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from random import Random

from holdfast.member.interface import Answer, Propose
from holdfast.proto import kv_pb2, raft_pb2, rpc_pb2
from holdfast.recipes.liveness import MAX_DRIFT

from holdfast_lab.sim.apps.contest import App
from holdfast_lab.sim.apps.referee import Referee
from holdfast_lab.sim.apps.works import Works
from holdfast_lab.sim.mix import SECOND, Mix, draw
from holdfast_lab.sim.node import Clock, Node
from holdfast_lab.sim.simulation import Result, Run
from holdfast_lab.sim.violation import check
from holdfast_lab.sim.world import World

SECONDS = 45
LONGEST_CUT = 9.0  # seconds
LONGEST_FREEZE = 20.0  # seconds; sessions live 3 to 6, and 6 more in jeopardy
REST_NS = 40 * SECOND
SERVED = 20  # revisions

APPS_SOMETIMES = (
    "session opened",
    "session jeopardy",
    "session safe again",
    "session expired",
    "application frozen",
    "application killed",
    "application cut off",
    "waiting cancelled",
    "gave up waiting",
    "acquired after the session's end",
    "several readers",
    "several permits",
    "late holder fenced off",
    "late use before another holder came",
    "late write refused",
    "lock-delay waited for",
    "watch resumed",
    "key deleted by an administrator",
    "key lost",
    "item claimed",
    "item given back",
    "item lost to another worker",
    "barrier passed",
    "barrier broken",
    "transfer made",
    "transfer of unknown outcome",
)


def _mix(seed: int, without: Collection[str]) -> Mix:
    """Faults of members as always, but for their clocks: the bound on drift is a premise of sessions."""
    mix = draw(World(seed).chance("mix"), without)
    return replace(mix, clients=0, skew=False, clock_jump=0.0, lease_reads=False, misuse=0.0, rolling=False)


class AppsRun(Run):
    def __init__(self, seed: int, *, seconds: int = 0, without: Collection[str] = (), keep_trace: int = 400) -> None:
        super().__init__(
            seed, seconds=seconds or SECONDS, mix=_mix(seed, without), keep_trace=keep_trace, history=False
        )
        self.checker.values_are_unique = False
        world, chance = self.world, self.world.chance("apps")
        self._referee = Referee(world, self.oracle)
        self._works = Works(world, self.oracle)
        numbered = chance.random() < 0.7
        slow = 0.2 * chance.random() if chance.random() < 0.5 else 0.0
        drifts = [chance.uniform(-1, 1) for _ in range(chance.randrange(2, 6))]
        self._apps = [
            App(
                world,
                self.ledger,
                self._referee,
                self._works,
                n,
                _clock(drift),
                self._streams,
                numbered=numbered,
                slow=slow,
            )
            for n, drift in enumerate(drifts)
        ]
        self._kills, self._freezes, self._cancels, self._deletes = (chance.random() < 0.6 for _ in range(4))
        self._cuts = self.world.chance("cuts").random() < 0.6
        self._trouble = self.world.chance("trouble")
        world.at(world.now + SECOND, self._disturb)

    def run(self) -> Result:
        try:
            return super().run()
        finally:
            for app in self._apps:
                app.end()

    def _disturb(self) -> None:
        if self.nemesis.stopped:
            return
        chance = self._trouble
        app = chance.choice(self._apps)
        draw_ = chance.random()
        if draw_ < 0.1 and self._kills:
            self.world.sometimes("application killed")
            app.kill()
        elif draw_ < 0.4 and self._freezes:
            self.world.sometimes("application frozen")
            app.freeze(LONGEST_FREEZE * chance.random() ** 2)
        elif draw_ < 0.6 and self._cancels:
            app.give_up()
        elif draw_ < 0.65 and self._deletes:
            self._delete_a_key(chance)
        elif 0.65 < draw_ < 0.9 and self._cuts:
            self.world.sometimes("application cut off")
            app.cut_off(LONGEST_CUT * chance.random())
        self.world.at(self.world.now + int(chance.expovariate(1.0) * SECOND), self._disturb)

    def _delete_a_key(self, chance: Random) -> None:
        """An administrator deletes the key of somebody who holds or waits."""
        nodes = self._asked()
        rows = self.oracle.range(b"r/", b"r0", self.oracle.revision)
        keys = [kv.key for row in rows if (kv := kv_pb2.KeyValue.FromString(row)).lease]
        if not nodes or not keys:
            return
        key, node = chance.choice(keys), chance.choice(nodes)
        self.world.sometimes("key deleted by an administrator")
        self.world.note(f"administrator deletes {key.decode()}")
        self._referee.deletes(key)
        self._works.deleted.add(key)
        command = raft_pb2.Command(delete_range=rpc_pb2.DeleteRangeRequest(key=key))
        deadline = node.clock.local(self.world.now) + 4 * SECOND

        def answered(_: Node, answer: Answer) -> None:
            if answer.error is None:
                self._referee.gone(key, answer.revision)

        self.ledger.ask(node, Propose(self.ledger.next_id(), command, deadline), answered)

    def _check_end(self) -> None:
        for app in self._apps:
            app.calm()
        self._await(REST_NS, self._at_rest, "an application waits for ever")
        self.world.run_until(self.world.now + 15 * SECOND)  # the longest TTL of one that was killed, and its revocation
        super()._check_end()
        self._referee.end()
        self._works.end()
        served = self.oracle.revision >= SERVED  # the members may have been in trouble all the time
        check(self._referee.acquired > 0 or not served, "R4", "nobody ever held anything")

    def _at_rest(self) -> bool:
        return all(app.process is None for app in self._apps)


def _clock(drift: float) -> Clock:
    clock = Clock()
    clock.skew(0, 1 + 0.95 * MAX_DRIFT * drift)
    return clock
