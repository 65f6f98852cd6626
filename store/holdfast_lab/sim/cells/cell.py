"""One cell: a cluster that executes transactions one after the other, as a Raft cluster does for who asks it.

It is a key space of the production code. That a cluster of members behaves like this is what the simulation of members
shows. It can be away, and it can be restored from what it was earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, Pending
from holdfast.proto import rpc_pb2
from holdfast.watch.hub import Delivery, Hub

Rows = tuple[dict[bytes, bytes], ...]


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

    def execute(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        """Raises RequestError."""
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

    def grant(self, end: float) -> int:
        self._last_lease += 1
        self.leases[self._last_lease] = end
        return self._last_lease

    def renew(self, lease: int, end: float) -> bool:
        if lease in self.leases:
            self.leases[lease] = end
        return lease in self.leases

    def revoke(self, lease: int) -> None:
        if self.leases.pop(lease, None) is None:
            return
        for key in sorted(self.space.leased.get(lease, ())):
            self.space.delete(key)
        self._commit()

    def expire(self, now: float) -> None:
        for lease in [lease for lease, end in self.leases.items() if end <= now]:
            self.revoke(lease)

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
