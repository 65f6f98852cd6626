"""Keys of the cluster as one site sees them: with what the site has set itself, below /local/SITE/.

A site sets the key K for itself by writing /local/SITE/K. It does that at its own replica, also while it is cut off.
The two are read together here, and never merged: each value says which of them it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from holdfast.client.connection import Connection
from holdfast.client.values import KeyValue, range_end, to_bytes
from holdfast.proto import rpc_pb2

_KV = "/etcdserverpb.KV/"


@dataclass(frozen=True, slots=True)
class SiteValue:
    """What a key is at the site. `local`: the site has set it itself; then `kv` has the key below /local/SITE/."""

    key: bytes
    value: bytes
    local: bool
    kv: KeyValue


class SiteView:
    """The keys as a site sees them. Its replica has to be among the client's endpoints."""

    def __init__(self, connection: Connection, site: str) -> None:
        """Raises ValueError if this is no name of a site."""
        if not site or "/" in site:
            raise ValueError(f"{site!r} is no name of a site")
        self._connection = connection
        self._prefix = b"/local/" + site.encode() + b"/"

    def _local(self, key: bytes) -> bytes:
        return self._prefix + key.removeprefix(b"/")

    async def get(self, key: str | bytes) -> SiteValue | None:
        """The key as the replica has it now: the site's own value if there is one, else the cluster's. Raises
        Unavailable if the replica has no copy of the site's keys: then it is not known whether there is one."""
        base = to_bytes(key)
        of_cluster, of_site = await asyncio.gather(self._read(base, b""), self._read(self._local(base), b""))
        local = bool(of_site)
        found = of_site or of_cluster
        return SiteValue(base, found[0].value, local, found[0]) if found else None

    async def range(self, prefix: str | bytes) -> list[SiteValue]:
        """All keys that begin with `prefix`, in order, as `get` gives them."""
        base = to_bytes(prefix)
        of_cluster, of_site = await asyncio.gather(*(self._read_all(start) for start in (base, self._local(base))))
        found = {kv.key: SiteValue(kv.key, kv.value, False, kv) for kv in of_cluster}
        slash = b"/" if base.startswith(b"/") else b""
        for kv in of_site:
            key = slash + kv.key.removeprefix(self._prefix)
            found[key] = SiteValue(key, kv.value, True, kv)
        return [found[key] for key in sorted(found)]

    async def _read_all(self, prefix: bytes) -> list[KeyValue]:
        return await self._read(prefix, range_end(prefix, prefix=True, end=None))

    async def _read(self, start: bytes, end: bytes) -> list[KeyValue]:
        request = rpc_pb2.RangeRequest(key=start, range_end=end, serializable=True)
        # The revisions of the site's keys say nothing of how far the cluster is.
        of_cluster = not start.startswith(self._prefix)
        answer = await self._connection.call(
            _KV + "Range", request, rpc_pb2.RangeResponse, idempotent=True, noted=of_cluster
        )
        return [KeyValue.of(kv) for kv in answer.kvs]

    async def put(self, key: str | bytes, value: str | bytes) -> int:
        """Set the key for this site. Returns the revision, which is one of the site's keys. Raises OutcomeUnknown if it
        was sent, but no answer came: there are no client sessions at a site."""
        request = rpc_pb2.PutRequest(key=self._local(to_bytes(key)), value=to_bytes(value))
        answer = await self._connection.call(_KV + "Put", request, rpc_pb2.PutResponse, idempotent=False, noted=False)
        return answer.header.revision

    async def delete(self, key: str | bytes) -> bool:
        """Let the cluster's value of this key count again. Returns whether the site had set it. Raises as `put`."""
        request = rpc_pb2.DeleteRangeRequest(key=self._local(to_bytes(key)))
        answer = await self._connection.call(
            _KV + "DeleteRange", request, rpc_pb2.DeleteRangeResponse, idempotent=False, noted=False
        )
        return answer.deleted > 0
