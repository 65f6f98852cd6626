"""Keys of the cluster as one site sees them: with what the site has set itself, below /local/SITE/.

A site sets the key K for itself by writing /local/SITE/K. It does that at its own replica, also while it is cut off.
The two are read together here, and never merged: each value says which of them it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc

from holdfast.client.connection import Connection
from holdfast.client.errors import Refused
from holdfast.client.login import Metadata
from holdfast.client.values import KeyValue, range_end, to_bytes
from holdfast.proto import rpc_pb2
from holdfast.status import NOT_OF_SITE, SITE_METADATA

_KV = "/etcdserverpb.KV/"


@dataclass(frozen=True, slots=True)
class SiteValue:
    """What a key is at the site. `local`: the site has set it itself; then `kv` has the key below /local/SITE/."""

    key: bytes
    value: bytes
    local: bool
    kv: KeyValue


class SiteView:
    """The keys as a site sees them. The client's endpoints have to be replicas of the site: other servers do not have
    its keys, and refuse."""

    def __init__(self, connection: Connection, site: str) -> None:
        """Raises ValueError if this is no name of a site."""
        if not site or "/" in site:
            raise ValueError(f"{site!r} is no name of a site")
        self._connection = connection
        self._site = site
        self._prefix = b"/local/" + site.encode() + b"/"
        self._about = ((SITE_METADATA, site),)

    def _local(self, key: bytes) -> bytes:
        return self._prefix + key.removeprefix(b"/")

    async def get(self, key: str | bytes) -> SiteValue | None:
        """The key as the replica has it now: the site's own value if there is one, else the cluster's. Raises
        Unavailable if the replica has no copy of the site's keys: then it is not known whether there is one. Raises
        Refused if it is not of this site."""
        base = to_bytes(key)
        of_cluster, of_site = await self._read_both(base, self._local(base), prefix=False)
        local = bool(of_site)
        found = of_site or of_cluster
        return SiteValue(base, found[0].value, local, found[0]) if found else None

    async def range(self, prefix: str | bytes) -> list[SiteValue]:
        """All keys that begin with `prefix`, in order, as `get` gives them."""
        base = to_bytes(prefix)
        of_cluster, of_site = await self._read_both(base, self._local(base), prefix=True)
        found = {kv.key: SiteValue(kv.key, kv.value, False, kv) for kv in of_cluster}
        slash = b"/" if base.startswith(b"/") else b""
        for kv in of_site:
            key = slash + kv.key.removeprefix(self._prefix)
            found[key] = SiteValue(key, kv.value, True, kv)
        return [found[key] for key in sorted(found)]

    async def _read_both(self, base: bytes, local: bytes, *, prefix: bool) -> tuple[list[KeyValue], list[KeyValue]]:
        of_cluster, of_site = await asyncio.gather(
            self._read(base, prefix, noted=True), self._read_local(local, prefix)
        )
        # The keys of a site have an id of their own. etcd, and versions that know no sites, take them for keys like
        # others.
        if of_site.header.cluster_id == of_cluster.header.cluster_id:
            raise self._refused()
        return [KeyValue.of(kv) for kv in of_cluster.kvs], [KeyValue.of(kv) for kv in of_site.kvs]

    def _refused(self) -> Refused:
        refusal = NOT_OF_SITE.fill(site=self._site)
        return Refused(grpc.StatusCode.FAILED_PRECONDITION, refusal.message, NOT_OF_SITE)

    async def _read_local(self, start: bytes, prefix: bool) -> rpc_pb2.RangeResponse:
        """The revisions of the site's keys say nothing of how far the cluster is."""
        return await self._read(start, prefix, noted=False, about=self._about)

    async def _read(self, start: bytes, prefix: bool, *, noted: bool, about: Metadata = ()) -> rpc_pb2.RangeResponse:
        end = range_end(start, prefix=True, end=None) if prefix else b""
        request = rpc_pb2.RangeRequest(key=start, range_end=end, serializable=True)
        return await self._connection.call(
            _KV + "Range", request, rpc_pb2.RangeResponse, idempotent=True, noted=noted, metadata=about
        )

    async def put(self, key: str | bytes, value: str | bytes) -> int:
        """Set the key for this site. Returns the revision, which is one of the site's keys. Raises OutcomeUnknown if it
        was sent, but no answer came: there are no client sessions at a site."""
        request = rpc_pb2.PutRequest(key=self._local(to_bytes(key)), value=to_bytes(value))
        answer = await self._connection.call(
            _KV + "Put", request, rpc_pb2.PutResponse, idempotent=False, noted=False, metadata=self._about
        )
        return answer.header.revision

    async def delete(self, key: str | bytes) -> bool:
        """Let the cluster's value of this key count again. Returns whether the site had set it. Raises as `put`."""
        request = rpc_pb2.DeleteRangeRequest(key=self._local(to_bytes(key)))
        answer = await self._connection.call(
            _KV + "DeleteRange",
            request,
            rpc_pb2.DeleteRangeResponse,
            idempotent=False,
            noted=False,
            metadata=self._about,
        )
        return answer.deleted > 0
