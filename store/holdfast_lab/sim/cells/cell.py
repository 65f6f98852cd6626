"""One cell: a cluster that executes transactions one after the other, as a Raft cluster does for who asks it.

It is a key space of the production code. In some runs a cell is a cluster of members instead (`sim.cells.members`). It
can be away, and it can be restored from what it was earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from holdfast.cells.clock import now
from holdfast.keyrange import prefix_end
from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, Pending
from holdfast.proto import rpc_pb2
from holdfast.status import Refusal, RequestError
from holdfast.watch.hub import Delivery, Hub

T = TypeVar("T")
Answered = Callable[[T | Refusal], None]  # a cell that cannot say what has become of a request does not call it
Rows = tuple[dict[bytes, bytes], ...]


def keys_of(space: KeySpace, prefix: bytes = b"") -> dict[bytes, bytes]:
    """The keys with this prefix, and their values."""
    key, end = (prefix, prefix_end(prefix)) if prefix else (b"\0", b"\0")
    kvs = requests.range_now(space, rpc_pb2.RangeRequest(key=key, range_end=end)).kvs
    return {kv.key: kv.value for kv in kvs}


class Cell(Protocol):
    """What clients use of a cell. `up`: requests arrive. `space`: what it has, for checks; None: nobody can say."""

    name: str
    cluster_id: int
    up: bool

    @property
    def space(self) -> KeySpace | None: ...

    def execute(self, request: rpc_pb2.TxnRequest, answered: Answered[rpc_pb2.TxnResponse]) -> None: ...

    def grant(self, ttl: int, answered: Answered[int]) -> None: ...

    def renew(self, lease: int, ttl: int, answered: Answered[bool]) -> None: ...

    def revoke(self, lease: int, answered: Answered[None]) -> None: ...


class SimCell:
    def __init__(self, name: str, cluster_id: int) -> None:
        self.name = name
        self.cluster_id = self.first_id = cluster_id
        self.epoch = 1
        self.up = True
        self.streams: dict[int, Callable[[Delivery], None]] = {}  # of those who follow, by their numbers
        self.committed: Callable[[SimCell], None] = lambda _: None  # called after each revision
        self.leases: dict[int, float] = {}  # and when they end
        self._last_lease = 0
        self._pending = Pending(MemoryStore())
        self.space = KeySpace(self._pending)
        self.hub = Hub(self.space)

    def execute(self, request: rpc_pb2.TxnRequest, answered: Answered[rpc_pb2.TxnResponse]) -> None:
        self.expire(now())
        try:
            answered(self._txn(request))
        except RequestError as error:
            answered(error.refusal)

    def _txn(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        response = requests.txn(self.space, self.leases, request)
        self._commit()
        response.header.cluster_id = self.cluster_id
        response.header.revision = self.space.revision
        return rpc_pb2.TxnResponse.FromString(response.SerializeToString())

    def _commit(self) -> None:
        changes = self.space.commit()
        self._pending.flush()
        if changes:
            self.committed(self)
            self._deliver(self.hub.publish([changes]))

    def compact(self, revision: int) -> None:
        self.space.compact(revision)
        self._pending.flush()

    def catch_up(self) -> None:
        """Send those who follow what they have missed."""
        while self.hub.busy:
            self._deliver(self.hub.catch_up())

    def _deliver(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.stream in self.streams:
                self.streams[delivery.stream](delivery)

    # ---- leases --------------------------------------------------------------------------------------------

    def grant(self, ttl: int, answered: Answered[int]) -> None:
        self._last_lease += 1
        self.leases[self._last_lease] = now() + ttl
        answered(self._last_lease)

    def renew(self, lease: int, ttl: int, answered: Answered[bool]) -> None:
        self.expire(now())
        if lease in self.leases:
            self.leases[lease] = now() + ttl
        answered(lease in self.leases)

    def revoke(self, lease: int, answered: Answered[None]) -> None:
        self._end(lease)
        answered(None)

    def _end(self, lease: int) -> None:
        if self.leases.pop(lease, None) is None:
            return
        for key in sorted(self.space.leased.get(lease, ())):
            self.space.delete(key)
        self._commit()

    def expire(self, time: float) -> None:
        for lease in [lease for lease, end in self.leases.items() if end <= time]:
            self._end(lease)

    # ---- backup --------------------------------------------------------------------------------------------

    def backup(self) -> Rows:
        return tuple(dict(self.space.store.scan(family, b"", None)) for family in Family)

    def restore(self, rows: Rows, cluster_id: int) -> None:
        """Become what it was then, as another cluster. Leases are granted anew by those who still use them."""
        self.cluster_id = cluster_id
        self.epoch += 1
        self._pending = Pending(MemoryStore(tuple(dict(of) for of in rows)))
        self.space = KeySpace(self._pending)
        self.hub = Hub(self.space)  # those who followed notice that it is another one
        self.leases = dict.fromkeys(self.space.leased, 0.0)
