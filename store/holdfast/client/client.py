"""The asyncio client: keys, watches, leases, and administration of a cluster."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from holdfast.client.cache import FIRST_SECONDS, Cache
from holdfast.client.closed import channel_may_close
from holdfast.client.config import Config, InvalidConfig, parser
from holdfast.client.connection import Connection, Response, Tls
from holdfast.client.endpoints import parse
from holdfast.client.errors import SessionEnded, Unavailable, known_of, refused
from holdfast.client.freshness import Freshness
from holdfast.client.keepalive import now
from holdfast.client.lease import Lease
from holdfast.client.login import Headers, Login, Metadata
from holdfast.client.picker import Address, Picker, Policy
from holdfast.client.position import Position
from holdfast.client.session import Session
from holdfast.client.site import SiteView
from holdfast.client.txn import Key, Ops, Txn
from holdfast.client.values import (
    DeleteResult,
    Event,
    KeyValue,
    PutResult,
    RangeResult,
    SequentialResult,
    range_end,
    range_start,
    to_bytes,
)
from holdfast.client.watch import watch
from holdfast.proto import holdfast_pb2, rpc_pb2
from holdfast.status import READ_METADATA, for_people

T = TypeVar("T")
LONGEST_STALENESS = 1e9  # seconds


def connect(
    endpoints: str | list[str],
    *,
    tls: Tls | None = None,
    timeout: float = 10.0,
    cache_dir: str | Path | None = None,
    session_ttl: int = 60,
    user: str = "",
    password: str = "",
    pick: Policy = "p2c",
    zone: str = "",
    zones: Mapping[str, str] | None = None,
    hedge: bool = True,
    monotonic: bool = False,
) -> Client:
    """Create a client of `endpoints`: "host:port", several as a list or separated by commas. Raises ValueError.

    TLS is used for `https://host:port`, not for `http://host:port`, and for `host:port` if `tls` is given. Without
    `tls`, the certificates in the directory HOLDFAST_TLS_DIR are used if that is set, otherwise for `https://` the CAs
    of the system. `timeout`: seconds for each call, including fail-over. `cache_dir` stores what must survive a restart
    without a network: the addresses of endpoints. `session_ttl`: TTL in seconds of the client session that names
    writes, opened with the first write, so that a write whose answer was lost can be sent again and takes effect once;
    0: no session, each write is sent once, and a lost answer raises OutcomeUnknown. `user` and `password`: credentials
    if auth is on (`etcdctl auth enable`); a client certificate may identify the user, too.

    `pick` says which address a call goes to, of all that the names of the endpoints have. p2c: the one with the lower
    latency and fewer open calls of two random ones, and writes to the leader if it is known; rotate; random; nearest:
    the lowest latency; leader: the leader for writes, else as p2c. `zone`: where this client is, such as "eu/a";
    `zones`: those of endpoints. Addresses of the same zone are preferred, then those of the same region, which is the
    part before the slash. `hedge`: a read that is slower than nineteen of twenty is sent to a second address, too; at
    most one read in twenty. `monotonic`: a serializable read never returns a state older than this client has seen, in
    its reads, writes and watches: it goes on to other servers, and if all are behind it waits, until it raises
    Unavailable at its timeout.
    """
    addresses, tls = parse(endpoints, tls, os.environ.get("HOLDFAST_TLS_DIR", ""))
    login = Login(user, password) if user or password else None
    picker = Picker(pick, zone=zone, zones=zones)
    connection = Connection(
        addresses,
        tls=tls,
        timeout=timeout,
        cache_dir=cache_dir,
        login=login,
        picker=picker,
        hedge=hedge,
        monotonic=monotonic,
    )
    return Client(connection, session_ttl)


class Client:
    """Reads, writes and watches. Keys may be str or bytes; values are bytes."""

    op = Ops()

    def __init__(self, connection: Connection, session_ttl: int = 0) -> None:
        self.connection = connection
        self._leases: set[Lease] = set()
        self._session = Session(connection, session_ttl)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close it, and the caches that follow by it."""
        for cache in list(self.connection.caches):
            await cache.close()
        await self._session.end()
        for lease in list(self._leases):
            await lease.release()
        await self.connection.close()

    def metrics(self) -> Mapping[str, Address]:
        """What is known of each address: calls, failures, calls without an answer yet, streams, latency, ejection."""
        return self.connection.metrics()

    @property
    def position(self) -> Position:
        """The newest revision that this client has seen in its reads, writes and watches; revision 0: none."""
        return self.connection.seen.position

    def require(self, position: Position) -> None:
        """From now on serializable reads are at least as new as `position`, which another client had, and as this
        client has seen, as with `monotonic`. Raises ValueError if it is of another cluster."""
        self.connection.seen.require(position)

    @property
    def leases_alive(self) -> int:
        return sum(lease.alive for lease in list(self._leases))

    @property
    def session_open(self) -> bool:
        """Whether writes are named by a session now."""
        return self._session.open

    async def _call(self, path: str, request: Message, response: type[Response], *, idempotent: bool) -> Response:
        return await self.connection.call(path, request, response, idempotent=idempotent)

    async def _write(self, path: str, request: Message, response: type[Response], *, barrier: bool = False) -> Response:
        """Make a call that changes something, named by the session so that it takes effect once. `barrier`: see
        `commit`."""
        for last in (False, True):
            try:
                async with self._session.name(barrier=barrier) as name:
                    return await self.connection.call(path, request, response, idempotent=False, name=name)
            except SessionEnded:
                if last:
                    raise
                await self._session.forget()  # the session has expired; nothing was sent
        raise AssertionError("unreachable")

    # ---- keys ----------------------------------------------------------------------------------------------

    async def get(
        self,
        key: str | bytes,
        *,
        revision: int = 0,
        serializable: bool = False,
        max_staleness: float | None = None,
    ) -> KeyValue | None:
        """The key's newest version (or that at `revision`); None if it does not exist.

        `serializable` reads what the server has, which may be stale; otherwise the read is linearizable. With
        `max_staleness` it has all that was acknowledged so many seconds before it began: a replica may answer it. A
        server that does not know this (etcd) answers it as linearizable. `range` also says how old the answer can be.
        """
        found = await self.range(key, revision=revision, serializable=serializable, max_staleness=max_staleness)
        return found.kvs[0] if found.kvs else None

    async def range(
        self,
        key: str | bytes,
        *,
        prefix: bool = False,
        end: str | bytes | None = None,
        limit: int = 0,
        revision: int = 0,
        serializable: bool = False,
        keys_only: bool = False,
        max_staleness: float | None = None,
    ) -> RangeResult:
        """The keys from `key` to `end` (exclusive), or with `prefix` all that begin with `key`. `serializable`,
        `max_staleness`: see `get`; not both."""
        start = to_bytes(key)
        metadata: Metadata = ()
        if max_staleness is not None:
            if serializable or not 0 <= max_staleness <= LONGEST_STALENESS:
                raise ValueError(f"max_staleness is from 0 to {LONGEST_STALENESS:g}, and needs no `serializable`")
            metadata = ((READ_METADATA, f"bounded={max_staleness:.6f}s"),)
        request = rpc_pb2.RangeRequest(
            key=range_start(start, prefix=prefix or end is not None),
            range_end=range_end(start, prefix=prefix, end=end),
            limit=limit,
            revision=revision,
            serializable=serializable,
            keys_only=keys_only,
        )
        headers: Headers | None = [] if serializable or metadata else None
        r = await self.connection.call(
            "/etcdserverpb.KV/Range",
            request,
            rpc_pb2.RangeResponse,
            idempotent=True,
            metadata=metadata,
            headers=headers,
        )
        freshness = Freshness.of(headers) if headers else None
        kvs = [KeyValue.of(kv) for kv in r.kvs]
        return RangeResult(kvs, r.count, r.more, r.header.revision, freshness, r.header.cluster_id)

    async def put(
        self, key: str | bytes, value: str | bytes, *, lease: Lease | int = 0, previous: bool = False
    ) -> PutResult:
        """Write. Raises OutcomeUnknown if it was sent, but no answer came in time, even after retries."""
        request = rpc_pb2.PutRequest(
            key=to_bytes(key),
            value=to_bytes(value),
            lease=lease.id if isinstance(lease, Lease) else lease,
            prev_kv=previous,
        )
        r = await self._write("/etcdserverpb.KV/Put", request, rpc_pb2.PutResponse)
        return PutResult(r.header.revision, KeyValue.of(r.prev_kv) if r.HasField("prev_kv") else None)

    async def report(self, key: str, value: str | bytes | None) -> None:
        """Report something of this node through its replica, which keeps it until the cluster has it under
        /reported/REPLICA/KEY. A later report takes the place of this one; None: nothing is reported under `key` any
        more. Raises Refused at a member, and Unavailable if the replica cannot keep it."""
        request = holdfast_pb2.ReportRequest(key=key, deleted=value is None)
        if value is not None:
            request.value = to_bytes(value)
        path = "/holdfast.v1.Reported/Report"
        await self.connection.call(path, request, holdfast_pb2.ReportResponse, idempotent=True)

    def site(self, name: str) -> SiteView:
        """The keys as this site sees them, with those that it has set itself; see `SiteView`."""
        return SiteView(self.connection, name)

    async def put_sequential(
        self, prefix: str | bytes, value: str | bytes, *, lease: Lease | int = 0
    ) -> SequentialResult:
        """Make a new key: `prefix` and the revision of this write in 20 digits. Such keys sort in the order in which
        they were made, and none is made twice. Raises NotImplementedThere on etcd, and OutcomeUnknown as `put` does."""
        request = holdfast_pb2.PutSequentialRequest(
            prefix=to_bytes(prefix), value=to_bytes(value), lease=lease.id if isinstance(lease, Lease) else lease
        )
        r = await self._write("/holdfast.v1.Keys/PutSequential", request, holdfast_pb2.PutSequentialResponse)
        return SequentialResult(r.key, r.header.revision)

    async def delete(self, key: str | bytes, *, prefix: bool = False, previous: bool = False) -> DeleteResult:
        """Delete the key, or with `prefix` all keys that begin with it."""
        start = to_bytes(key)
        request = rpc_pb2.DeleteRangeRequest(
            key=range_start(start, prefix=prefix), range_end=range_end(start, prefix=prefix, end=None), prev_kv=previous
        )
        r = await self._write("/etcdserverpb.KV/DeleteRange", request, rpc_pb2.DeleteRangeResponse)
        return DeleteResult(r.header.revision, r.deleted, [KeyValue.of(kv) for kv in r.prev_kvs])

    @staticmethod
    def key(key: str | bytes) -> Key:
        """A key to build the compares of a transaction: `hf.key("/a").version == 1`."""
        return Key(key)

    def txn(self) -> Txn:
        """Begin a transaction: `await hf.txn().if_(…).then(hf.op.put(…)).else_(…).commit()`."""
        return Txn(self.commit)

    @property
    def numbered(self) -> bool:
        """Whether the servers number this client's writes, so that each takes effect once and `barrier` works. On etcd
        it becomes false with the first write."""
        return self._session.numbered

    async def commit(self, request: rpc_pb2.TxnRequest, *, barrier: bool = False) -> rpc_pb2.TxnResponse:
        """Send a transaction as it is on the wire. `barrier`: send it when no write that this client began before is
        waited for any more. Then none of these can take effect after it, also not those that were cancelled or timed
        out. On etcd, which has no client sessions, they still can."""
        return await self._write("/etcdserverpb.KV/Txn", request, rpc_pb2.TxnResponse, barrier=barrier)

    async def compact(self, revision: int) -> None:
        """Compact history before `revision`."""
        request = rpc_pb2.CompactionRequest(revision=revision)
        await self._write("/etcdserverpb.KV/Compact", request, rpc_pb2.CompactionResponse)

    # ---- watches and leases --------------------------------------------------------------------------------

    async def watch(
        self, key: str | bytes, *, prefix: bool = False, start_revision: int = 0, previous: bool = False
    ) -> AsyncIterator[Event]:
        """Changes from `start_revision` on (0: from now), in order and each exactly once, across lost connections."""
        async for events in self.watch_batches(key, prefix=prefix, start_revision=start_revision, previous=previous):
            for event in events:
                yield event

    def watch_batches(
        self, key: str | bytes, *, prefix: bool = False, start_revision: int = 0, previous: bool = False
    ) -> AsyncIterator[list[Event]]:
        """Like `watch`, but yields the events of a revision together."""
        start = to_bytes(key)
        end = range_end(start, prefix=prefix, end=None)
        return watch(self.connection, start, end, start_revision=start_revision, previous=previous)

    async def config(
        self,
        key: str | bytes,
        model: Callable[[bytes], T] | type[T],
        *,
        file: str | Path | None = None,
        confirm_seconds: float = 5.0,
    ) -> Config[T]:
        """One key as a typed value that is always valid. Close it, or use `async with`.

        `model`: a pydantic model, which reads JSON, or a function of bytes that raises ValueError. A value that cannot
        be parsed changes nothing and is told by `Config.error`. `file` keeps the newest valid value for a start while
        no server answers. Raises InvalidConfig if there was never a valid value, and a ClientError as `cache` does.
        """
        where, name = Path(file) if file is not None else None, to_bytes(key)
        cache = Cache(self.connection, name, end=b"", file=where, confirm=confirm_seconds, parse=parser(model))
        await cache.start()
        try:
            return Config(name, cache)
        except InvalidConfig:
            await cache.close()
            raise

    async def cache(
        self,
        prefix: str | bytes,
        *,
        file: str | Path | None = None,
        confirm_seconds: float = 5.0,
        first_seconds: float = FIRST_SECONDS,
        consistent: bool = False,
    ) -> Cache:
        """All keys with `prefix`, in memory and kept current: reads cost no call. Close it, or use `async with`.

        `consistent`: hold a cache lease, under which `current` needs no call, because writes wait until this cache has
        let go of what they change. The prefix has to be declared cachable (`holdfast cache allow`); otherwise, or
        without a lease, `current` asks the cluster.

        `file` keeps the newest state for a start while no server answers; the cache then says how old it is. The age is
        confirmed every `confirm_seconds`. If the file has a state, a server's answer is waited for only
        `first_seconds`. Raises a ClientError if no server answers and there is no file.
        """
        where = Path(file) if file is not None else None
        cache = Cache(self.connection, to_bytes(prefix), file=where, confirm=confirm_seconds, consistent=consistent)
        return await cache.start(first_seconds)

    async def allow_caching(self, prefix: str | bytes) -> bool:
        """Declare that clients may cache the keys with `prefix` consistently. False: it was declared already. Raises
        Refused, also if the prefix has keys in common with another one that is declared."""
        return await self._set_cachable("/holdfast.v1.Caches/Allow", to_bytes(prefix))

    async def forbid_caching(self, prefix: str | bytes) -> bool:
        """Take a declaration back. False: there was none."""
        return await self._set_cachable("/holdfast.v1.Caches/Forbid", to_bytes(prefix))

    async def _set_cachable(self, path: str, prefix: bytes) -> bool:
        request = holdfast_pb2.CachePrefixRequest(prefix=prefix)
        return (await self._call(path, request, holdfast_pb2.CachePrefixResponse, idempotent=True)).changed

    async def cachable(self) -> list[bytes]:
        """The prefixes whose keys clients may cache consistently."""
        request = holdfast_pb2.CacheListRequest()
        found = await self._call("/holdfast.v1.Caches/List", request, holdfast_pb2.CacheListResponse, idempotent=True)
        return list(found.prefixes)

    async def lease(self, ttl: int) -> Lease:
        """Grant a lease of `ttl` seconds, kept alive until it is revoked or the client is closed."""
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl)
        asked = now()
        r = await self._call("/etcdserverpb.Lease/LeaseGrant", request, rpc_pb2.LeaseGrantResponse, idempotent=True)
        lease = Lease(self.connection, r.ID, r.TTL, asked)
        self._leases.add(lease)
        lease.ended(self._leases.discard)
        return lease

    # ---- the cluster ---------------------------------------------------------------------------------------

    async def members(self) -> list[rpc_pb2.Member]:
        request = rpc_pb2.MemberListRequest(linearizable=True)
        path = "/etcdserverpb.Cluster/MemberList"
        return list((await self._call(path, request, rpc_pb2.MemberListResponse, idempotent=True)).members)

    async def status(self, endpoint: str | None = None) -> rpc_pb2.StatusResponse:
        return await self.connection.call(
            "/etcdserverpb.Maintenance/Status",
            rpc_pb2.StatusRequest(),
            rpc_pb2.StatusResponse,
            idempotent=True,
            endpoint=endpoint,
        )

    async def hash_kv(self, endpoint: str, revision: int = 0) -> rpc_pb2.HashKVResponse:
        return await self.connection.call(
            "/etcdserverpb.Maintenance/HashKV",
            rpc_pb2.HashKVRequest(revision=revision),
            rpc_pb2.HashKVResponse,
            idempotent=True,
            endpoint=endpoint,
        )

    async def snapshot(self) -> AsyncIterator[bytes]:
        """The state as an archive, in pieces; the last piece is the SHA-256 of all others. Raises a ClientError."""
        for address in await self.connection.order(stream=True):
            who = await self.connection.who()
            channel = await self.connection.ready(address, self.connection.timeout)
            call = channel.unary_stream(
                "/etcdserverpb.Maintenance/Snapshot",
                request_serializer=rpc_pb2.SnapshotRequest.SerializeToString,
                response_deserializer=rpc_pb2.SnapshotResponse.FromString,
            )(rpc_pb2.SnapshotRequest(), metadata=who)
            try:
                while True:
                    with channel_may_close():
                        response = await call.read()
                    if response is grpc.aio.EOF:
                        return
                    yield response.blob
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    text = for_people(error.details() or error.code().name)
                    raise Unavailable(f"{self.connection.shown(address)}: {text}", known_of(error)) from None
                raise refused(error) from None

    # ---- for operators -------------------------------------------------------------------------------------

    async def describe(self, endpoint: str | None = None) -> holdfast_pb2.DescribeResponse:
        """Describe the node at an endpoint, whether it belongs to a cluster or not."""
        return await self.connection.call(
            "/holdfast.v1.Node/Describe",
            holdfast_pb2.DescribeRequest(),
            holdfast_pb2.DescribeResponse,
            idempotent=True,
            endpoint=endpoint,
        )

    async def form(self, cluster_id: int, volume_id: int) -> int:
        """Found a cluster on the only node of this client. Returns its member id. Idempotent."""
        request = holdfast_pb2.FormRequest(cluster_id=cluster_id, volume_id=volume_id)
        r = await self._call("/holdfast.v1.Node/Form", request, holdfast_pb2.FormResponse, idempotent=True)
        return r.member_id

    async def open_for_clients(self, cluster_id: int) -> None:
        request = holdfast_pb2.OpenRequest(cluster_id=cluster_id)
        await self._call("/holdfast.v1.Node/Open", request, holdfast_pb2.OpenResponse, idempotent=True)

    async def membership(self) -> holdfast_pb2.MembershipGetResponse:
        request = holdfast_pb2.MembershipGetRequest()
        path = "/holdfast.v1.Membership/Get"
        return await self._call(path, request, holdfast_pb2.MembershipGetResponse, idempotent=True)

    async def change_membership(self, request: holdfast_pb2.MembershipChangeRequest) -> int:
        """Change the membership. Returns the new config index. A change based on an older configuration is refused, so
        the call can be repeated after an unknown outcome."""
        path = "/holdfast.v1.Membership/Change"
        r = await self._call(path, request, holdfast_pb2.MembershipChangeResponse, idempotent=False)
        return r.config_index

    async def member_add(self, peer_urls: list[str], *, learner: bool) -> int:
        """Add a member. Returns its id."""
        request = rpc_pb2.MemberAddRequest(peerURLs=peer_urls, isLearner=learner)
        r = await self._call("/etcdserverpb.Cluster/MemberAdd", request, rpc_pb2.MemberAddResponse, idempotent=False)
        return r.member.ID

    async def member_promote(self, member: int) -> None:
        request = rpc_pb2.MemberPromoteRequest(ID=member)
        path = "/etcdserverpb.Cluster/MemberPromote"
        await self._call(path, request, rpc_pb2.MemberPromoteResponse, idempotent=False)

    async def member_remove(self, member: int) -> None:
        request = rpc_pb2.MemberRemoveRequest(ID=member)
        path = "/etcdserverpb.Cluster/MemberRemove"
        await self._call(path, request, rpc_pb2.MemberRemoveResponse, idempotent=False)

    async def move_leader(self, target: int) -> None:
        """Ask the leader to transfer leadership to `target`. This client must be connected to the leader."""
        request = rpc_pb2.MoveLeaderRequest(targetID=target)
        path = "/etcdserverpb.Maintenance/MoveLeader"
        await self._call(path, request, rpc_pb2.MoveLeaderResponse, idempotent=True)
