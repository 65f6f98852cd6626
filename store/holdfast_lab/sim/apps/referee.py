"""Sees all applications at once, and judges what their recipes told them: the invariants R1 to R4.

R1. Of one name no more hold it, each by its own session and clock, than its recipe allows; whoever holds has a key.
R2. A holder whose session is certainly alive is never refused by what the lock protects, which refuses smaller tokens
    than it has seen; and what is written under the compare of a token is written in the order of tokens.
R3. Whoever holds has come before all others that still wait, by the true history of the keys.
R4. When all is well again, nobody waits for ever, and nothing is left of sessions that ended.
R5. Nobody is told that its key is gone who has it.
R6 to R8 are those of `works.py`.
R9. Nobody holds what a session with a lock-delay held, and lost by expiry, before the delay is over; what is closed is
    free at once.

An administrator deletes keys now and then. What was held by such a key is held no more, and its holder cannot know.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.keyrange import prefix_end
from holdfast.proto import kv_pb2
from holdfast.recipes.liveness import State
from holdfast.recipes.lock import Held
from holdfast.recipes.token import Token

from holdfast_lab.sim.apps.space import SimSpace
from holdfast_lab.sim.mix import SECOND
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.violation import check
from holdfast_lab.sim.world import World

UNNOTICED_NS = 8 * SECOND  # what was asked before a key was deleted may be answered so much later


@dataclass(slots=True)
class Claim:
    """Somebody acquired this. `shared`: a reader, which excludes only writers. `permits`: of a semaphore."""

    who: int
    held: Held
    space: SimSpace
    token: Token
    shared: bool = False
    permits: int = 1

    @property
    def stands(self) -> bool:
        """Whether its holder may rely on it now."""
        return self.held.held and self.held.token == self.token

    @property
    def over(self) -> bool:
        """Whether it can never stand again: it was released, or its session has expired."""
        return self.space.state() is State.EXPIRED or not self.held.owned or self.held.token != self.token


@dataclass(slots=True)
class _Name:
    claims: list[Claim] = field(default_factory=list)
    shown: tuple[int, int] = (0, 0)  # the highest token that what is protected has seen


class Referee:
    """Judges one run."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self._world = world
        self._oracle = oracle
        self._names: dict[bytes, _Name] = {}
        self._deleted: set[bytes] = set()  # what the administrator asked to delete; that may be refused, or come late
        self._gone: dict[bytes, tuple[int, int]] = {}  # when it was told so, and the revision of the deletion
        self.acquired = 0

    def took(self, name: bytes, claim: Claim) -> None:
        """`claim.who` was told that it holds `name`."""
        self.acquired += 1
        about = self._names.setdefault(name, _Name())
        self._after_the_delay(name, about, claim)
        about.claims = [c for c in about.claims if not c.over and c.token.key not in self._deleted]
        if not claim.stands:
            self._world.sometimes("acquired after the session's end")
            return
        if claim.token.key in self._deleted:
            at, revision = self._gone.get(claim.token.key, (self._world.now, 0))
            late = claim.token.revision < revision and self._world.now > at + UNNOTICED_NS
            check(not late, "R1", f"{claim.who} holds {name!r} by {claim.token}, whose key was deleted before")
            return
        self._alone(name, about, claim)
        if any(c.stands for c in about.claims):
            self._world.sometimes("several readers" if claim.shared else "several permits")
        about.claims.append(claim)
        if claim.permits == 1 and not claim.shared:
            self._in_order(name, claim)

    def _alone(self, name: bytes, about: _Name, claim: Claim) -> None:
        """R1: others that stand, by their own clocks, leave room for this one."""
        others = [c for c in about.claims if c is not claim and c.stands and not (c.shared and claim.shared)]
        check(
            len(others) < claim.permits,
            "R1",
            f"{claim.who} holds {name!r} by {claim.token}, and so do {[(c.who, str(c.token)) for c in others]}",
        )

    def _after_the_delay(self, name: bytes, about: _Name, claim: Claim) -> None:
        """R9, for what excludes `claim`."""
        for lost in about.claims:
            space = lost.space
            excludes = lost.permits == 1 and not (lost.shared and claim.shared) and lost.held.owned
            if not excludes or space.closed or not space.lock_delay or lost.token.key in self._deleted:
                continue
            if lost.over and lost.held.token == lost.token:
                self._world.sometimes("lock-delay waited for")
                free = space.safe_until_ns + space.lock_delay * SECOND
                check(
                    self._world.now >= free,
                    "R9",
                    f"{claim.who} holds {name!r} by {claim.token} {(free - self._world.now) / SECOND:.2f} s before the "
                    f"lock-delay of {lost.who} is over, who lost it by {lost.token}",
                )

    def deletes(self, key: bytes) -> None:
        """The administrator asks to delete this key."""
        self._deleted.add(key)

    def gone(self, key: bytes, revision: int) -> None:
        """The administrator was told that the key is deleted. An attempt to enter may make it anew after that."""
        self._gone[key] = (self._world.now, revision)

    def lost(self, key: bytes) -> None:
        """R5: somebody was told that this key is gone."""
        self._world.sometimes("key lost")
        there = self._oracle.value(key, self._oracle.revision)
        check(there is None, "R5", f"the key {key!r} is there, and its owner was told that it is gone")

    def _in_order(self, name: bytes, claim: Claim) -> None:
        """R3, by the newest state that any member has."""
        prefix = name + b"/"
        now = self._oracle.range(prefix, prefix_end(prefix), self._oracle.revision)
        for row in now:
            kv = kv_pb2.KeyValue.FromString(row)
            check(
                kv.create_revision >= claim.token.revision,
                "R3",
                f"{claim.who} holds {name!r} by {claim.token}, before {kv.key!r} of {kv.create_revision}",
            )

    def use(self, name: bytes, claim: Claim) -> bool:
        """`claim.who` uses what the lock protects, with its token. False: it is refused."""
        about = self._names.setdefault(name, _Name())
        token = claim.token[:2]
        if claim.stands and claim.token.key not in self._deleted:
            self._alone(name, about, claim)
        if token < about.shown:
            self._world.sometimes("late holder fenced off")
            stands = claim.stands and claim.token.key not in self._deleted
            check(not stands, "R2", f"{claim.who} holds {name!r} by {claim.token}, and {about.shown} was shown")
            return False
        if not claim.stands:
            self._world.sometimes("late use before another holder came")
        about.shown = token
        return True

    def end(self) -> None:
        """R4, for what is left, and R2 for what was written."""
        left = self._oracle.range(b"r/", b"r0", self._oracle.revision)
        waiting = [kv.key for row in left if (kv := kv_pb2.KeyValue.FromString(row)).lease]
        check(not waiting, "R4", f"keys of sessions that ended are left: {waiting}")
        newest: dict[bytes, tuple[int, ...]] = {}
        for change in self._oracle.events:
            if change.key.startswith(b"fenced/") and change.kv:
                written = tuple(int(n) for n in kv_pb2.KeyValue.FromString(change.kv).value.split(b"."))
                before = newest.get(change.key, (0, 0))
                check(written >= before, "R2", f"{change.key!r} was written by {written} after {before}")
                newest[change.key] = written
