"""Member cores on stores in memory, driven step by step: the output of one is the input of the others."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from holdfast.kv.store import MemoryStore
from holdfast.levels import CLUSTER_VERSION
from holdfast.machine import Genesis, applied
from holdfast.member.core import MemberCore
from holdfast.member.interface import (
    Answer,
    Appended,
    CacheGiven,
    CountedOn,
    Input,
    KeepAlive,
    Output,
    PeerMessage,
    Propose,
    Read,
)
from holdfast.member.recovery import Replay, fit
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.log import Log
from holdfast.raft.messages import Message, TimeoutNow
from holdfast.raft.types import DurableAppend, Settings

MS = 1_000_000
SECOND = 1000 * MS
LATE = 1 << 60


class Members:
    """A cluster of member cores. `step` drives one, `settle` drives all until nothing is in flight."""

    def __init__(
        self,
        *ids: int,
        settings: Settings | None = None,
        priorities: dict[int, int] | None = None,
        version: str = CLUSTER_VERSION,
    ) -> None:
        self.now = 0
        self.settings = settings or Settings()
        known = priorities or {}
        infos = [
            raft_pb2.MemberInfo(
                id=i, name=f"m{i}", peer_urls=[f"http://m{i}:2380"], volume_id=i, priority=known.get(i, 0)
            )
            for i in ids
        ]
        self.genesis = Genesis(tuple(infos), version)
        self.cores: dict[int, MemberCore] = {}
        self.stores: dict[int, MemoryStore] = {}
        self.disks: dict[int, Replay] = {}
        self.mail: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.answers: dict[int, Answer] = {}
        self.snapshots: list[tuple[int, int]] = []
        self.changes: list[object] = []
        self.refused: list[tuple[int, str]] = []
        self.caches: list[CacheGiven] = []
        self.incarnation = 0
        for member in ids:
            store = MemoryStore()
            self.genesis.write(store)
            self.disks[member] = Replay([DurableAppend(0, None, 0, (), base=(1, 1))])
            self.start(member, store)

    def start(self, member: int, store: MemoryStore) -> MemberCore:
        self.incarnation += 1
        disk = self.disks.setdefault(member, Replay([DurableAppend(0, None, 0, ())]))
        log = Log(disk.log.base_index, disk.log.base_term, disk.log.since(disk.log.first))
        fit(log, *applied(store))
        self.stores[member] = store
        self.cores[member] = MemberCore(
            member,
            incarnation=self.incarnation,
            now_ns=self.now,
            random=Random(member),
            store=store,
            log=log,
            hard_state=disk.hard_state,
            settings=self.settings,
            max_learners=2,
        )
        return self.cores[member]

    # ---- moving ---------------------------------------------------------------------------------------------

    def step(self, member: int, *inputs: Input, sync: bool = True) -> Output:
        core = self.cores[member]
        out = core.step(self.now, inputs)
        self._take(member, out, sync)
        while out.more:
            out = core.step(self.now, ())
            self._take(member, out, sync)
        return out

    def _take(self, member: int, out: Output, sync: bool) -> None:
        self.refused += out.refused
        self.mail += [m for m in out.messages if (m.frm, m.to) not in self.cut]
        self.answers.update({a.id: a for a in out.answers})
        self.snapshots += [(member, to) for to in out.snapshots]
        self.changes += out.changes
        self.caches += out.caches
        if out.later_start:
            self.step(member, CountedOn(out.later_start + 1))
        if out.append is not None and sync:
            self.disks[member].feed(out.append)
            self.step(member, Appended(out.append.seq))

    def deliver(self, want: Callable[[Message], bool] = lambda _: True) -> int:
        chosen = [m for m in self.mail if want(m)]
        self.mail = [m for m in self.mail if not want(m)]
        for message in chosen:
            if message.to in self.cores and (message.frm, message.to) not in self.cut:
                self.step(message.to, PeerMessage(message))
        return len(chosen)

    def drop(self, want: Callable[[Message], bool] = lambda _: True) -> list[Message]:
        lost = [m for m in self.mail if want(m)]
        self.mail = [m for m in self.mail if not want(m)]
        return lost

    def settle(self) -> None:
        for _ in range(1000):
            if not self.deliver():
                return
        raise AssertionError("it does not settle")

    def pass_time(self, ns: int) -> None:
        for _ in range(0, ns, 50 * MS):
            self.now += 50 * MS
            for member in sorted(self.cores):
                self.step(member)
            self.settle()

    def isolate(self, member: int) -> None:
        others = set(self.disks) - {member}
        self.cut |= {link for other in others for link in ((member, other), (other, member))}
        self.mail = [m for m in self.mail if (m.frm, m.to) not in self.cut]

    # ---- shorthands -----------------------------------------------------------------------------------------

    def elect(self, member: int) -> MemberCore:
        core = self.cores[member]
        self.step(member, PeerMessage(TimeoutNow(member, 0, core.term)))
        self.settle()
        assert core.is_leader
        return core

    def ask(self, member: int, id: int, command: raft_pb2.Command, deadline: int = LATE) -> None:
        copy = raft_pb2.Command()
        copy.CopyFrom(command)
        self.step(member, Propose(id, copy, deadline))

    def put(self, member: int, id: int, key: bytes, value: bytes = b"", lease: int = 0) -> None:
        self.ask(member, id, raft_pb2.Command(put=rpc_pb2.PutRequest(key=key, value=value, lease=lease)))

    def grant(self, member: int, id: int, lease: int, ttl: int) -> None:
        self.ask(member, id, raft_pb2.Command(lease_grant=raft_pb2.LeaseGrant(id=lease, ttl_seconds=ttl)))

    def read(self, member: int, id: int, deadline: int = LATE) -> None:
        self.step(member, Read(id, deadline))

    def keep_alive(self, member: int, id: int, lease: int, query: bool = False, deadline: int = LATE) -> None:
        self.step(member, KeepAlive(id, lease, query, deadline))

    def change(self, member: int, id: int, kind: int, target: int, *more: tuple[int, int], expected: int = 0) -> None:
        steps = [_step(k, t) for k, t in ((kind, target), *more)]
        steps[0].together.extend(steps[1:])
        steps[0].expected_config_index = expected
        self.ask(member, id, raft_pb2.Command(member=steps[0]))

    def error(self, id: int) -> str:
        answer = self.answers[id]
        return answer.error.message if answer.error is not None else ""


def _step(kind: int, member: int) -> raft_pb2.MemberChange:
    info = raft_pb2.MemberInfo(id=member, name=f"m{member}", peer_urls=[f"http://m{member}:2380"])
    return raft_pb2.MemberChange(kind=kind, member=info)  # type: ignore[arg-type]
