"""A model of what a cluster's members agree on: who votes, who leads, what is acknowledged, and on which volumes it is.

It follows the store's own rules (`member/membership.py`, `api/node.py`), not its messages: a leader exists while a
majority of the voters runs and can reach one another; a write is acknowledged once a majority of the voters' volumes
holds it; a change of membership is checked by the index of the configuration, and is committed by a majority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from holdfast.status import (
    CONF_MOVED,
    CONF_PENDING,
    LEARNER_NOT_READY,
    MEMBER_EXISTS,
    MEMBER_NOT_FOUND,
    NOT_ENOUGH_STARTED,
    NOT_LEARNER,
    PEER_URL_EXISTS,
    TOO_MANY_LEARNERS,
    Refusal,
)

from holdfast_operator.sim.keyvalues import KeyValues


class Lost(Exception):
    """Acknowledged writes are on no volume that could lead."""


class NotAllowed(Exception):
    """The cluster refuses a request."""

    def __init__(self, known: Refusal) -> None:
        super().__init__(known.message)
        self.known = known


@dataclass(slots=True)
class Disk:
    """What is on one volume."""

    volume_id: int
    cluster_id: int = 0
    member_id: int = 0
    opened: bool = True
    match: int = 0  # how much of the cluster's log it holds
    removed: bool = False  # its process has learned that the member was removed

    @property
    def empty(self) -> bool:
        return not self.cluster_id


@dataclass(slots=True)
class Process:
    """A running node of the store, on one disk."""

    pod: str
    disk: Disk
    reachable: bool = True  # by its peers and by the operator
    started_at: float = 0.0
    caught_up: bool = False  # since it started


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    name: str
    url: str
    voter: bool


@dataclass(slots=True)
class Group:
    """One cluster of the store."""

    cluster_id: int
    members: dict[int, Member]
    rng: Random
    index: int = 1
    acknowledged: int = 0
    config_index: int = 1
    leader: int = 0
    leaderless_since: float = 0.0
    led_at: float = 0.0  # since when the leader leads
    removed: set[int] = field(default_factory=set)
    pending: bool = False  # a change of membership is proposed and not yet committed
    slow: set[int] = field(default_factory=set)  # members that lag behind
    data: KeyValues = field(default_factory=KeyValues)
    joins_at: dict[int, float] = field(default_factory=dict)
    given_up: bool = False  # its owner has deleted the data

    @property
    def voters(self) -> set[int]:
        return {m.id for m in self.members.values() if m.voter}

    @property
    def learners(self) -> set[int]:
        return {m.id for m in self.members.values() if not m.voter}

    def answers(self, running: Iterable[int], voters: set[int] | None = None) -> bool:
        """Whether these members are a majority of the voters."""
        of = self.voters if voters is None else voters
        return 2 * len(of & set(running)) > len(of)

    # ---- changes of membership -----------------------------------------------------------------------------

    def changed(
        self, kind: str, member: int, name: str, urls: list[str], expected: int, running: Mapping[int, Process]
    ) -> dict[int, Member]:
        """The members after the change; raises NotAllowed if the leader would refuse it."""
        if self.pending:
            raise NotAllowed(CONF_PENDING)
        if expected != self.config_index:
            raise NotAllowed(CONF_MOVED)
        new = dict(self.members)
        known = new.get(member)
        if kind == "ADD_LEARNER":
            if known is not None or member in self.removed:
                raise NotAllowed(MEMBER_EXISTS)
            if any(m.url in urls for m in new.values()):
                raise NotAllowed(PEER_URL_EXISTS)
            if self.learners:
                raise NotAllowed(TOO_MANY_LEARNERS)
            new[member] = Member(member, name, urls[0], voter=False)
            return new
        if known is None:
            raise NotAllowed(MEMBER_NOT_FOUND)
        if kind == "PROMOTE":
            if known.voter:
                raise NotAllowed(NOT_LEARNER)
            if not self.is_caught_up(running.get(member)):
                raise NotAllowed(LEARNER_NOT_READY)
            new[member] = Member(known.id, known.name, known.url, voter=True)
        else:
            del new[member]
        voters = {m.id for m in new.values() if m.voter}
        if not voters or (voters != self.voters and not self.answers(running, voters)):
            raise NotAllowed(NOT_ENOUGH_STARTED)
        return new

    def commit(self, new: dict[int, Member]) -> None:
        self.removed |= set(self.members) - set(new)
        self.members = new
        self.index += 1
        self.config_index = self.index

    def is_caught_up(self, process: Process | None) -> bool:
        """The leader's rule: 90 % of the log, and at most 1,000 entries missing."""
        match = process.disk.match if process is not None else 0
        return match > 0 and match * 10 >= self.index * 9 and self.index - match <= 1000

    # ---- time passes ---------------------------------------------------------------------------------------

    def step(self, now: float, running: Mapping[int, Process], resolve: Callable[[str], Process | None]) -> None:
        """Elections, writes, replication. `running`: by member id; `resolve`: who is at a peer URL."""
        self._lead(now, running)
        if not self.leader:
            return
        self._join(now, resolve)
        self.index += 1  # there is always somebody who writes
        for member, process in running.items():
            if member in self.members and (member == self.leader or member not in self.slow):
                ready = self.joins_at.get(member, 0.0) <= now
                process.disk.match = self.index if ready else process.disk.match
                process.caught_up = process.caught_up or ready
            elif member in self.removed and self.rng.random() < 0.8:
                process.disk.removed = True
        matches = sorted((p.disk.match for m, p in running.items() if m in self.voters), reverse=True)
        majority = len(self.voters) // 2
        if len(matches) > majority:
            self.acknowledged = max(self.acknowledged, matches[majority])

    def _lead(self, now: float, running: Mapping[int, Process]) -> None:
        eligible = {m: p for m, p in running.items() if m in self.voters}
        if self.leader and (self.leader not in eligible or not self.answers(eligible)):
            self.leader, self.leaderless_since = 0, now
        if self.leader or not self.answers(eligible) or now - self.leaderless_since < 1.0:
            return
        best = max(p.disk.match for p in eligible.values())
        if best < self.acknowledged and self.given_up:
            self.acknowledged = best
        elif best < self.acknowledged:
            raise Lost(f"{self.acknowledged - best} acknowledged writes are on no volume of a voter that runs")
        self.leader = self.rng.choice(sorted(m for m, p in eligible.items() if p.disk.match == best))
        self.led_at = now
        self.pending = False

    def _join(self, now: float, resolve: Callable[[str], Process | None]) -> None:
        """The leader dials members that have no state yet; they take the cluster's id from it."""
        for member in self.members.values():
            process = resolve(member.url)
            if process is not None and process.disk.empty and process.disk.volume_id == member.id:
                process.disk.cluster_id, process.disk.member_id = self.cluster_id, member.id
                self.joins_at[member.id] = now + self.rng.uniform(0.2, 6.0)
