"""Whether the programs at the edge use a configuration, by what they have reported.

That a replica has the data is not that a program uses it. A program that says so reports `Applied` through its replica,
under `client.applied_key(prefix)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from holdfast import client
from holdfast.client import Applied, Position, SyncState
from holdfast.proto import holdfast_pb2
from holdfast.reported import place_key

AT_ONCE = 100  # keys that are read in one transaction
NAMED = 3  # nodes in a message


@dataclass(slots=True)
class Sync:
    """States of the nodes that have reported, and what those say that do not use the data."""

    states: dict[str, SyncState] = field(default_factory=dict)  # by replica
    errors: dict[str, str] = field(default_factory=dict)

    def count(self, state: SyncState, replicas: Iterable[str]) -> int:
        return sum(1 for replica in replicas if self.states.get(replica) is state)

    @property
    def reason(self) -> str:
        """The worst state, as the reason of a condition."""
        found = set(self.states.values())
        order = (SyncState.FAILED, SyncState.DRIFTED, SyncState.UNREACHABLE, SyncState.PENDING)
        worst = next((state for state in order if state in found), SyncState.IN_SYNC)
        return worst.name.title().replace("_", "")

    @property
    def message(self) -> str:
        used = self.count(SyncState.IN_SYNC, self.states)
        text = f"{used} of {len(self.states)} nodes that report use the data"
        others = [replica for replica, state in sorted(self.states.items()) if state is not SyncState.IN_SYNC]
        others.sort(key=lambda replica: replica not in self.errors)  # these first
        named = [f"{replica}: {self.errors.get(replica) or self.states[replica].value}" for replica in others[:NAMED]]
        if len(others) > NAMED:
            named.append(f"and {len(others) - NAMED} more")
        return f"{text} ({'; '.join(named)})" if named else text


async def sync(hf: client.Client, prefix: str, reports: Sequence[holdfast_pb2.ReplicaReport], revision: int) -> Sync:
    """What the nodes of these replicas have reported about this prefix. `revision`: of the last change of the data.
    Raises ClientError."""
    applied = {r.replica: a async for r, a in _applied(hf, prefix, reports)}
    found = Sync()
    if not applied:
        return found
    wanted = client.digest((await hf.range(prefix, prefix=True)).kvs)
    position = Position(hf.position.cluster_id, revision)
    reachable = {r.replica for r in reports if not r.offline_since}
    for replica, report in applied.items():
        found.states[replica] = client.sync_state(position, wanted, report, reachable=replica in reachable)
        if report.error and found.states[replica] is SyncState.FAILED:
            found.errors[replica] = report.error
    return found


async def _applied(
    hf: client.Client, prefix: str, reports: Sequence[holdfast_pb2.ReplicaReport]
) -> AsyncIterator[tuple[holdfast_pb2.ReplicaReport, Applied]]:
    for some in _slices(reports):
        keys = [place_key(r.replica) + b"/" + client.applied_key(prefix).encode() for r in some]
        answer = await hf.txn().then(*(hf.op.get(key) for key in keys)).commit()
        for report, kvs in zip(some, answer.responses, strict=True):
            applied = Applied.parse(kvs[0].value) if isinstance(kvs, list) and kvs else None
            if applied is not None:
                yield report, applied


def _slices(reports: Sequence[holdfast_pb2.ReplicaReport]) -> Iterator[Sequence[holdfast_pb2.ReplicaReport]]:
    for first in range(0, len(reports), AT_ONCE):
        yield reports[first : first + AT_ONCE]
