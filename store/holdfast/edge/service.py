"""The services of an edge replica: serves reads and watches of its prefixes locally, and forwards all other calls.

A key outside the prefixes gets an error that says so, never "not found". Without a connection to the cluster, calls
that have to be forwarded fail as unavailable; they are never queued.

Who may read is decided by `edge.access`; the cluster decides of forwarded calls, which say whose they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from holdfast import __version__
from holdfast.api.methods import WHO_AM_I
from holdfast.api.read_modes import Fresh, ReadMode, described, mode_of
from holdfast.api.reports import Reports
from holdfast.api.router import Router
from holdfast.api.stream import Stream
from holdfast.api.versions import Versions
from holdfast.api.wire import range_response
from holdfast.edge.access import Access, ReplicaCaller
from holdfast.edge.core import ReplicaCore
from holdfast.edge.follow import Follower, boot_ns
from holdfast.edge.forward import (
    FORWARD_SECONDS,
    ForwardedAnswers,
    ForwardedKeepAlives,
    Forwarder,
    header_of,
    seconds_left,
)
from holdfast.edge.forwarded import ANSWERS, FORWARDED, WAITING
from holdfast.edge.holding import as_range
from holdfast.edge.local import CHANGES, RESPONSES, LocalApi
from holdfast.edge.offline import OfflinePolicies
from holdfast.edge.site_state import site_state
from holdfast.edge.waiting import Waiting
from holdfast.edge.watched import Watched
from holdfast.front.calls import Call, Kind
from holdfast.keyrange import Range, bounds
from holdfast.kv.scan import RangeScan
from holdfast.kv.validate import check_range
from holdfast.places import Full, Places
from holdfast.proto import election_pb2, health_pb2, holdfast_pb2, lock_pb2, rpc_pb2
from holdfast.served.keyspace import ServedSpace
from holdfast.served.scans import S
from holdfast.status import (
    CACHE_AT_REPLICA,
    OUTSIDE_PREFIXES,
    REPLICA_DISCONNECTED,
    REPLICA_EMPTY,
    REPLICA_TOO_OLD,
    TOO_MANY_REQUESTS,
    Code,
    Refusal,
    RequestError,
)
from holdfast.tasks import Tasks
from holdfast.watch.hub import Hub

_ELSEWHERE = frozenset((*FORWARDED, *WAITING, *ANSWERS))  # a member checks their tokens
SHOWN_BYTES = 200  # of a key in an error text
# To a member all logins through a replica come from one connection, so the replica's clients have to take turns here.
LOGINS = 8  # forwarded at the same time
MAX_ASKED = 64  # tokens about which members are asked at the same time
MAX_LOGINS = 64  # of one connection, being forwarded or waiting
# Response types of reads and writes, which are answered only once the replica has reached the response's revision.
# Otherwise a client could afterwards read an older state here.
_WRITES: dict[str, Callable[[], Any]] = {
    **RESPONSES,
    "/holdfast.v1.Keys/PutSequential": holdfast_pb2.PutSequentialResponse,
    "/etcdserverpb.Lease/LeaseRevoke": rpc_pb2.LeaseRevokeResponse,
    "/v3lockpb.Lock/Lock": lock_pb2.LockResponse,
    "/v3lockpb.Lock/Unlock": lock_pb2.UnlockResponse,
    "/v3electionpb.Election/Campaign": election_pb2.CampaignResponse,
    "/v3electionpb.Election/Proclaim": election_pb2.ProclaimResponse,
    "/v3electionpb.Election/Resign": election_pb2.ResignResponse,
    "/etcdserverpb.KV/Range": rpc_pb2.RangeResponse,
}


class WatchedReplica(Watched):
    """The keys of the cluster, and the way to those of the site."""

    def __init__(self, api: EdgeApi, caller: ReplicaCaller) -> None:
        super().__init__(api, caller)
        self._local = api.local

    def part(self, start: bytes, end: bytes | None) -> Watched:
        if self._local is None or not self._local.keys.has((start, end)):
            return self
        return Watched(self._local, self._caller)


class EdgeApi:
    """All services of a replica."""

    def __init__(
        self,
        router: Router,
        core: ReplicaCore,
        follower: Follower,
        forwarder: Forwarder,
        *,
        name: str,
        volume_id: int,
        prefixes: tuple[str, ...],
        access: Access,
        offline: OfflinePolicies,
        served: ServedSpace,
        reports: Reports,
        poke: Callable[[], None],
        local: LocalApi | None = None,
    ) -> None:
        """`local` answers requests about keys of the site, if the replica is of one."""
        self.local = local
        self._router = router
        self._core = core
        self._follower = follower
        self._forwarder = forwarder
        self._name = name
        self._volume_id = volume_id
        self._prefixes = prefixes
        self.access = access
        self.offline = offline
        self.poke = poke
        self._served = served
        self._reports = reports
        self._for_watermark = Waiting()  # answers and reads that want a revision
        self._for_time = Waiting()  # reads that want everything from before a time (boot_ns)
        self._tasks = Tasks()
        self._logins = Places(LOGINS, MAX_LOGINS)
        self._asked: dict[str, list[Callable[[], None]]] = {}  # tokens about which a member is asked, and who waits
        router.unary("/etcdserverpb.KV/Range", self.range)
        router.unary("/etcdserverpb.Auth/Authenticate", self._login)
        for path in FORWARDED:
            router.unary(path, self._forward if local is None or path not in CHANGES else self._change)
        for path in WAITING:
            router.unary(path, self._forward_waiting)
        for path in ANSWERS:
            router.stream(path, Kind.SERVER_STREAM, self._forward_answers)
        router.stream("/etcdserverpb.Lease/LeaseKeepAlive", Kind.BIDI, self._forward_keep_alives)
        router.stream("/holdfast.v1.Caches/Hold", Kind.BIDI, _refuse_cache_lease)
        router.unary("/etcdserverpb.Maintenance/Status", self.status)
        router.unary("/holdfast.v1.Node/Describe", self.describe)
        router.unary("/grpc.health.v1.Health/Check", self.health)

    # ---- watchable -----------------------------------------------------------------------------------------

    @property
    def hub(self) -> Hub:
        return self._served.hub

    def header(self, revision: int | None) -> rpc_pb2.ResponseHeader:
        p = self._core.position
        return rpc_pb2.ResponseHeader(
            cluster_id=p.cluster_id,
            member_id=self._volume_id,
            revision=p.watermark if revision is None else revision,
            raft_term=p.term,
        )

    def watchable(self, call: Call) -> WatchedReplica:
        caller = self.access.caller(call)
        caller.require_user()
        return WatchedReplica(self, caller)

    # ---- local ---------------------------------------------------------------------------------------------

    def check_served(self, range: Range) -> None:
        """Raise RequestError unless this range is here, and may be served now."""
        self.check_here(range)
        self.offline.check(range)

    def check_here(self, range: Range | None = None) -> None:
        """Raise RequestError unless there is data, or all of this range, whoever asks."""
        if range is not None:
            self._check_scope(*range)
        self._check_data(range)

    def _check_data(self, range: Range | None = None) -> None:
        if not (self._core.covers(*range) if range is not None else self._core.complete):
            raise RequestError(REPLICA_EMPTY.fill(name=self._name))

    def _check_scope(self, start: bytes, end: bytes | None) -> None:
        if not self._core.wants(start, end):
            shown = start[:SHOWN_BYTES].decode("utf-8", "replace") + ("..." if len(start) > SHOWN_BYTES else "")
            raise RequestError(OUTSIDE_PREFIXES.fill(key=shown, prefixes=", ".join(self._prefixes)))

    def range(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.RangeRequest.FromString(body)
        check_range(request)
        wanted = bounds(request.key, request.range_end)
        if self.local is not None and self.local.concerns(call) and self.local.keys.has(wanted):
            self.local.range(call, body)
            return
        mode = mode_of(call, serializable=request.serializable)
        if mode.fresh is Fresh.LINEARIZABLE:
            self._forward(call, body)
            return
        self.access.caller(call).require_read(wanted)
        self.check_here(wanted)
        if not mode.held:
            self.offline.check(wanted)
        mode.check_cluster(self._core.position.cluster_id)
        self._when_fresh(call, mode, lambda: self._read(call, request, mode.fresh))

    def _when_fresh(self, call: Call, mode: ReadMode, work: Callable[[], None]) -> None:
        """Run `work` once the data is as fresh as asked for. Raises RequestError if it is not, and cannot become so."""
        if mode.fresh is Fresh.LOCAL:
            work()
            return
        here: int | None
        if mode.fresh is Fresh.AT_LEAST:
            waiting, wanted, here = self._for_watermark, mode.position.revision, self._core.position.watermark
        else:
            waiting, wanted, here = self._for_time, boot_ns() - int(mode.seconds * 1e9), self._follower.fresh_at
        if here is not None and here >= wanted:
            work()
            return
        if not self._follower.reaches_cluster:
            raise RequestError(self._too_old(mode))
        seconds = seconds_left(call)

        def too_late() -> None:
            self._router.fail(call.id, self._too_old(mode))

        self._router.on_cancel(call, waiting.wait(wanted, lambda: self._guard(call, work), seconds, too_late))
        self._follower.want_progress()

    def fresher(self) -> None:
        """The data is known to be younger: answer the reads that waited for that."""
        fresh_at = self._follower.fresh_at
        if fresh_at is not None:
            self._for_time.reached(fresh_at)

    def _too_old(self, mode: ReadMode) -> Refusal:
        if mode.fresh is Fresh.AT_LEAST:
            has, wanted = f"has revision {self._core.position.watermark}", f"{mode.position.revision}"
        elif self._follower.staleness_ms is None:
            has, wanted = "does not know how old its data is", f"at most {mode.seconds:g}s"
        else:
            has, wanted = f"may be {self._bound()} behind", f"at most {mode.seconds:g}s"
        return REPLICA_TOO_OLD.fill(name=self._name, has=has, wanted=wanted)

    def _bound(self) -> str:
        staleness = self._follower.staleness_ms
        return "unknown" if staleness is None else f"{staleness / 1000:.3f}s"

    def _guard(self, call: Call, work: Callable[[], None]) -> None:
        try:
            work()
        except RequestError as error:
            self._router.fail(call.id, error.refusal)

    def _read(self, call: Call, request: rpc_pb2.RangeRequest, fresh: Fresh) -> None:
        headers: list[bytes] = []
        told: list[tuple[tuple[bytes, bytes], ...]] = []

        def begin() -> RangeScan:
            headers.append(self.header(None).SerializeToString())
            p = self._core.position
            told.append(described(fresh, p.cluster_id, p.watermark, self._bound()))
            return self._core.space.scan(request)

        def done(scan: RangeScan) -> None:
            kvs, more, count = scan.result()
            self._router.reply(call.id, range_response(headers[0], kvs, more, count), told[0])

        self.scan(call, begin, done)

    def scan(self, call: Call, begin: Callable[[], S], done: Callable[[S], None]) -> None:
        """Do this work in turns with that of others, then call `done`. The call fails if the work does."""

        def failed(error: Refusal) -> None:
            self._router.fail(call.id, error)

        owner, outbox = call.peer.address, call.peer.outbox
        cancel = self._served.scans.run(
            begin, lambda work: self._guard(call, lambda: done(work)), failed, owner=owner, outbox=outbox
        )
        self._router.on_cancel(call, cancel)

    def status(self, call: Call, body: bytes) -> None:
        rpc_pb2.StatusRequest.FromString(body)
        response = rpc_pb2.StatusResponse(header=self.header(None), version=Versions().server, isLearner=True)
        if not self._follower.connected:
            response.errors.append("holdfast: disconnected; serving what was last known")
        if self._core.superseded:
            response.errors.append("holdfast: the cluster was restored; serving what was known before until it is here")
        if self._core.stalled:
            response.errors.append("holdfast: the disk takes no writes; serving what was known before")
        self._router.reply(call.id, response.SerializeToString())

    def describe(self, call: Call, body: bytes) -> None:
        holdfast_pb2.DescribeRequest.FromString(body)
        p = self._core.position
        response = holdfast_pb2.DescribeResponse(
            volume_id=self._volume_id,
            cluster_id=p.cluster_id,
            state=holdfast_pb2.DescribeResponse.REPLICA,
            name=self._name,
            version=__version__,
            term=p.term,
            epoch=p.epoch,
            ready=self._core.complete,
            revision=p.watermark,
            connected=self._follower.connected,
            replicas=self._reports.all(),
            path=self._core.path,
            held=[as_range(r) for r in self._core.shown],
            site=site_state(self.local),
        )
        staleness = self._follower.staleness_ms
        if staleness is not None:
            response.staleness_ms = staleness
        self._router.reply(call.id, response.SerializeToString())

    def health(self, call: Call, body: bytes) -> None:
        health_pb2.HealthCheckRequest.FromString(body)
        good = self._core.complete
        status = health_pb2.HealthCheckResponse.SERVING if good else health_pb2.HealthCheckResponse.NOT_SERVING
        self._router.reply(call.id, health_pb2.HealthCheckResponse(status=status).SerializeToString())

    # ---- forwarded -----------------------------------------------------------------------------------------

    def hold(self, call: Call, go_on: Callable[[], None]) -> bool:
        """Ask a member about the call's token if that is due. Returns whether the call waits for it, and goes on by
        `go_on`; what is known of a token is used until the answer is here."""
        here = call.method not in _ELSEWHERE or (self.local is not None and call.method in CHANGES)
        token = self.access.due(call) if here else ""
        if not token:
            return False
        known = self.access.tokens.identify(token, self.access.auth) is not None
        waiting = self._asked.get(token)
        if waiting is None and len(self._asked) >= MAX_ASKED:
            if known:
                return False
            raise RequestError(TOO_MANY_REQUESTS)
        if waiting is None:
            waiting = self._asked[token] = []
            self._tasks.spawn(self._ask(token))
        if not known:
            waiting.append(go_on)
        return not known

    async def _ask(self, token: str) -> None:
        tokens = self.access.tokens
        try:
            answer = holdfast_pb2.WhoAmIResponse.FromString(await self._forwarder.ask(WHO_AM_I, b"", token))
            tokens.checked(token, answer.user, answer.auth_revision, answer.token_ends_ms)
        except RequestError as error:
            if error.refusal.code is Code.UNAUTHENTICATED:
                tokens.refused(token)
        finally:
            for go_on in self._asked.pop(token):
                go_on()

    def reached(self) -> None:
        """The watermark has moved: send the responses that waited for it."""
        self._for_watermark.reached(self._core.position.watermark)

    def _forward(self, call: Call, body: bytes) -> None:
        self._check_connected()
        self._tasks.spawn(self._do_forward(call, body))

    def _change(self, call: Call, body: bytes) -> None:
        assert self.local is not None
        if not (self.local.concerns(call) and self.local.take(call, body)):
            self._forward(call, body)

    def _check_connected(self) -> None:
        if not self._follower.reaches_cluster:
            raise RequestError(REPLICA_DISCONNECTED.fill(name=self._name, prefixes=", ".join(self._prefixes)))

    def _forward_waiting(self, call: Call, body: bytes) -> None:
        """The call ends with its caller, also at the cluster: else it would take a lock for nobody."""
        self._check_connected()
        work = self._tasks.spawn(self._do_forward(call, body, longest=None))
        self._router.on_cancel(call, work.cancel)

    def _forward_answers(self, call: Call) -> Stream:
        self._check_connected()
        return ForwardedAnswers(self._forwarder, self._router, call)

    def _forward_keep_alives(self, call: Call) -> Stream:
        return ForwardedKeepAlives(self._forwarder, self._router, call)

    def _login(self, call: Call, body: bytes) -> None:
        """Forward a login when it is this client's turn."""
        self._check_connected()
        try:
            place = self._logins.ask(call.peer.address)
        except Full:
            raise RequestError(TOO_MANY_REQUESTS) from None
        self._router.on_cancel(call, place.give_up)

        async def work() -> None:
            async with place:
                await self._do_forward(call, body)

        self._tasks.spawn(work())

    async def _do_forward(self, call: Call, body: bytes, longest: float | None = FORWARD_SECONDS) -> None:
        seconds = longest
        if call.deadline_ns is not None:
            left = (call.deadline_ns - time.monotonic_ns()) / 1e9
            seconds = left if seconds is None else min(seconds, left)
        kind = _WRITES.get(call.method)
        try:
            answer = await self._forwarder.call(call, body, seconds)
            header = None if kind is None else header_of(answer, kind)
        except RequestError as error:
            self._router.fail(call.id, error.refusal)
            return
        if header is None:
            self._router.reply(call.id, answer)
            return
        # Hold the response until its revision can be read here, or until the deadline, so that a client of this replica
        # does not read an older state afterwards.
        revision = header.revision
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if kind is rpc_pb2.RangeResponse:
            headers = described(Fresh.LINEARIZABLE, header.cluster_id, revision, "0s")

        def reply() -> None:
            self._router.reply(call.id, answer, headers)

        if revision <= self._core.position.watermark:
            reply()
        else:
            self._for_watermark.wait(revision, reply, FORWARD_SECONDS if seconds is None else seconds, reply)
            self._follower.want_progress()  # it may be of other prefixes: then no change will come


def _refuse_cache_lease(call: Call) -> Stream:
    raise RequestError(CACHE_AT_REPLICA)
