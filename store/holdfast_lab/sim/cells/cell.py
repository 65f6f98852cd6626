"""One cell: a cluster that executes transactions one after the other, as a Raft cluster does for who asks it.

It is a key space of the production code. That a cluster of members behaves like this is what the simulation of members
shows. It can be away, and it can be restored from what it was earlier.
"""

from __future__ import annotations

from holdfast.kv import requests
from holdfast.kv.space import KeySpace
from holdfast.kv.store import Family, MemoryStore, Pending
from holdfast.proto import rpc_pb2

Rows = tuple[dict[bytes, bytes], ...]


class SimCell:
    def __init__(self, name: str, cluster_id: int) -> None:
        self.name = name
        self.cluster_id = cluster_id
        self.up = True
        self.leases: dict[int, float] = {}  # and when they end
        self._last_lease = 0
        self._pending = Pending(MemoryStore())
        self.space = KeySpace(self._pending)

    def execute(self, request: rpc_pb2.TxnRequest) -> rpc_pb2.TxnResponse:
        """Raises RequestError."""
        response = requests.txn(self.space, self.leases, request)
        self._commit()
        response.header.cluster_id = self.cluster_id
        response.header.revision = self.space.revision
        return rpc_pb2.TxnResponse.FromString(response.SerializeToString())

    def _commit(self) -> None:
        self.space.commit()
        self._pending.flush()

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
        self._pending = Pending(MemoryStore(tuple(dict(of) for of in rows)))
        self.space = KeySpace(self._pending)
        self.leases = dict.fromkeys(self.space.leased, 0.0)
