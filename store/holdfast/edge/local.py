"""Requests about keys of the site, below /local/SITE/. The replica that writes them answers them itself. Others serve
serializable reads and watches from their copies, and forward all else to the one that writes.

None of this needs the cluster. Whoever may read and write which of these keys is decided by the cluster's users and
roles, as they are known here, as for all other keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from holdfast.api.identity import FORWARDED
from holdfast.api.read_modes import READ, Fresh, described, mode_of
from holdfast.api.router import Router
from holdfast.api.wire import range_response
from holdfast.auth.checks import check_delete as check_delete_rights
from holdfast.auth.checks import check_put as check_put_rights
from holdfast.auth.checks import check_txn as check_txn_rights
from holdfast.client.errors import Unavailable
from holdfast.edge.access import Access
from holdfast.edge.forward import Forwarder, header_of, seconds_left
from holdfast.edge.site_copy import SiteCopy
from holdfast.edge.site_keys import SiteKeys, puts_of
from holdfast.edge.site_writer import SiteWriter
from holdfast.edge.waiting import Waiting
from holdfast.front.calls import Call
from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.kv.requests import changes
from holdfast.kv.scan import RangeScan
from holdfast.kv.txn_check import TxnCheck
from holdfast.kv.txn_scan import TxnScan
from holdfast.kv.validate import check_delete, check_put, check_range, check_txn
from holdfast.proto import holdfast_pb2, raft_pb2, rpc_pb2
from holdfast.served.scans import S
from holdfast.status import (
    FUTURE_REVISION,
    REPLICA_EMPTY,
    REQUEST_TOO_LARGE,
    SITE_METADATA,
    WRITER_UNREACHABLE,
    Code,
    Refusal,
    RequestError,
)
from holdfast.tasks import Tasks
from holdfast.watch.hub import Hub

PUT, DELETE, TXN = (f"/etcdserverpb.KV/{name}" for name in ("Put", "DeleteRange", "Txn"))
CHANGES = (PUT, DELETE, TXN, "/holdfast.v1.Keys/PutSequential")
MAX_REQUEST_BYTES = 1_572_864  # as at a member
RESPONSES: dict[str, Callable[[], Any]] = {
    PUT: rpc_pb2.PutResponse,
    DELETE: rpc_pb2.DeleteRangeResponse,
    TXN: rpc_pb2.TxnResponse,
}


class LocalApi:
    """`forwarder` leads to the replica that writes; None: it is this one. `name` is this replica's name, `node`
    its volume id."""

    def __init__(
        self,
        router: Router,
        keys: SiteKeys,
        site: SiteWriter | SiteCopy,
        forwarder: Forwarder | None,
        access: Access,
        *,
        name: str,
        node: int,
        poke: Callable[[], None],
    ) -> None:
        self.keys = keys
        self.site = site
        self.poke = poke
        self._router = router
        self._forwarder = forwarder
        self._access = access
        self._name = name
        self._node = node
        self._tasks = Tasks()
        self._for_revision = Waiting()

    @property
    def writes(self) -> bool:
        return self._forwarder is None

    @property
    def hub(self) -> Hub:
        return self.site.served.hub

    def concerns(self, call: Call) -> bool:
        """Whether the keys below /local/ that this call names may be those of the site. A replica without a site that
        forwards a call here means those of the cluster, as it would at a member."""
        return FORWARDED not in call.metadata or SITE_METADATA in call.metadata

    def header(self, revision: int | None) -> rpc_pb2.ResponseHeader:
        lineage = self.site.lineage
        return rpc_pb2.ResponseHeader(
            cluster_id=lineage.cluster_id,
            member_id=self._node,
            revision=self.site.served.space.revision if revision is None else revision,
            raft_term=lineage.epoch,
        )

    def check_served(self, range: Range) -> None:
        """Raise RequestError if there is no copy yet. All of the site's keys are here, or none."""
        if not self.site.complete:
            raise RequestError(REPLICA_EMPTY.fill(name=self._name))

    def _unreachable(self) -> Refusal:
        site = self.keys.site
        return WRITER_UNREACHABLE.fill(name=self._name, writer=site.writer, address=site.address, site=site.name)

    # ---- reads ---------------------------------------------------------------------------------------------

    def range(self, call: Call, body: bytes) -> None:
        """A Range of keys of the site. Raises RequestError."""
        request = rpc_pb2.RangeRequest.FromString(body)
        check_range(request)
        mode = mode_of(call, serializable=request.serializable)
        here = mode.fresh is Fresh.LOCAL
        if self._forwarder is not None and not here:
            self._forward(call, body)
            return
        wanted = bounds(request.key, request.range_end)
        self._access.caller(call).require_read(wanted)
        self.check_served(wanted)
        mode.check_cluster(self.site.lineage.cluster_id)
        if mode.fresh is Fresh.AT_LEAST and mode.position.revision > self.site.served.space.revision:
            raise RequestError(FUTURE_REVISION)
        fresh = Fresh.LOCAL if here else Fresh.LINEARIZABLE
        told = self._described(fresh) if READ in call.metadata or not self.writes else ()

        space, header = self.site.served.space, self.header(None).SerializeToString()

        def done(scan: RangeScan) -> None:
            kvs, more, count = scan.result()
            self._router.reply(call.id, range_response(header, kvs, more, count), told)

        self._in_slices(call, lambda: space.scan(request), done)

    def _in_slices(self, call: Call, begin: Callable[[], S], done: Callable[[S], None]) -> None:
        """Do work on many rows, in turns with other connections; then call `done`. The call fails if the work does, or
        `done`."""

        def failed(error: Refusal) -> None:
            self._router.fail(call.id, error)

        def finished(work: S) -> None:
            try:
                done(work)
            except RequestError as error:
                failed(error.refusal)

        cancel = self.site.served.scans.run(begin, finished, failed, owner=call.peer.address, outbox=call.peer.outbox)
        self._router.on_cancel(call, cancel)

    def _described(self, fresh: Fresh) -> tuple[tuple[bytes, bytes], ...]:
        staleness = 0 if isinstance(self.site, SiteWriter) else self.site.follower.staleness_ms
        bound = "unknown" if staleness is None else f"{staleness / 1000:.3f}s" if staleness else "0s"
        return described(fresh, self.site.lineage.cluster_id, self.site.served.space.revision, bound)

    # ---- writes --------------------------------------------------------------------------------------------

    def take(self, call: Call, body: bytes) -> bool:
        """Whether this call of `CHANGES` is about keys of the site: then it is answered. Raises RequestError."""
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestError(REQUEST_TOO_LARGE)
        if call.method == PUT:
            return self._put(call, body)
        if call.method == DELETE:
            return self._delete(call, body)
        if call.method == TXN:
            return self._txn(call, body)
        return self._put_sequential(body)

    def _put_sequential(self, body: bytes) -> bool:
        request = holdfast_pb2.PutSequentialRequest.FromString(body)
        if request.prefix and self.keys.has(bounds(request.prefix, prefix_end(request.prefix))):
            text = "holdfast: keys of a site are not numbered by PutSequential: put them in a transaction"
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, text))
        return False

    def _put(self, call: Call, body: bytes) -> bool:
        request = rpc_pb2.PutRequest.FromString(body)
        check_put(request)
        if not self.keys.has(bounds(request.key, b"")):
            return False
        self.keys.check_put(request)
        caller = self._access.caller(call)
        caller.require(lambda auth, who: check_put_rights(auth, who, request, {}))
        self._change(call, body, raft_pb2.Command(put=request))
        return True

    def _delete(self, call: Call, body: bytes) -> bool:
        request = rpc_pb2.DeleteRangeRequest.FromString(body)
        check_delete(request)
        if not self.keys.has(bounds(request.key, request.range_end)):
            return False
        caller = self._access.caller(call)
        caller.require(lambda auth, who: check_delete_rights(auth, who, request))
        self._change(call, body, raft_pb2.Command(delete_range=request))
        return True

    def _txn(self, call: Call, body: bytes) -> bool:
        request = rpc_pb2.TxnRequest.FromString(body)
        check_txn(request)
        if not self.keys.has_all(request):
            return False
        for put in puts_of(request):
            self.keys.check_put(put)
        caller = self._access.caller(call)
        caller.require(lambda auth, who: check_txn_rights(auth, who, request, {}))
        space = self.site.served.space
        if self._forwarder is not None:
            self._forward(call, body)
        elif changes(request):
            command = raft_pb2.Command(txn=request)
            self._in_slices(call, lambda: TxnCheck(space, request), lambda _: self._change(call, body, command))
        else:
            self._in_slices(call, lambda: TxnScan(space, request), lambda scan: self._answer_txn(call, scan))
        return True

    def _answer_txn(self, call: Call, scan: TxnScan) -> None:
        scan.response.header.CopyFrom(self.header(scan.revision))
        self._router.reply(call.id, scan.response.SerializeToString())

    def _change(self, call: Call, body: bytes, command: raft_pb2.Command) -> None:
        if self._forwarder is not None:
            self._forward(call, body)
            return
        assert isinstance(self.site, SiteWriter)

        def done(response: Message, revision: int) -> None:
            head = type(response)(header=self.header(revision))
            head.MergeFrom(response)
            self._router.reply(call.id, head.SerializeToString())

        def failed(refusal: Refusal) -> None:
            self._router.fail(call.id, refusal)

        self.site.change(command, done, failed)

    # ---- at a replica that does not write ------------------------------------------------------------------

    def _forward(self, call: Call, body: bytes) -> None:
        self._tasks.spawn(self._do_forward(call, body))

    async def _do_forward(self, call: Call, body: bytes) -> None:
        assert self._forwarder is not None
        seconds = seconds_left(call)
        try:
            await self._forwarder.channel(seconds)
        except Unavailable:
            self._router.fail(call.id, self._unreachable())  # nothing was sent
            return
        try:
            answer = await self._forwarder.call(call, body, seconds)
            revision = header_of(answer, RESPONSES[call.method]).revision if call.method in RESPONSES else 0
        except RequestError as error:
            self._router.fail(call.id, error.refusal)
            return

        def reply() -> None:
            self._router.reply(call.id, answer)

        if revision <= self.site.served.space.revision:
            reply()
        else:  # until what was written can be read here
            self._for_revision.wait(revision, reply, seconds, reply)

    def reached(self) -> None:
        """The copy has moved."""
        self._for_revision.reached(self.site.served.space.revision)
