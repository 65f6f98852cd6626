"""etcdserverpb.Maintenance and grpc.health.v1: status, alarms, hashes, defragmentation, snapshots, leader transfer."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import time
from collections.abc import Callable
from shutil import rmtree

from holdfast.api.base import Service, Serving
from holdfast.api.router import Router
from holdfast.front.calls import Call, Kind
from holdfast.histogram import DISK, Histogram
from holdfast.kv.hashing import HistoryHash
from holdfast.kv.store import StateDamaged
from holdfast.member.driver import Member
from holdfast.proto import health_pb2, raft_pb2, rpc_pb2
from holdfast.status import (
    BAD_DOWNGRADE_TARGET,
    BAD_DOWNGRADE_VERSION,
    BAD_TRANSFEREE,
    NO_DOWNGRADE,
    NO_LEADER,
    NOT_LEADER,
    STATE_DAMAGED,
    TIMEOUT,
    Code,
    Refusal,
    RequestError,
)
from holdfast.storage.archive import Manifest, pack
from holdfast.tasks import Tasks

log = logging.getLogger("holdfast.api")

BLOB_BYTES = 32 << 10
MAX_SNAPSHOTS = 2  # at the same time: each needs as much disk space as the data
UNREAD_SECONDS = 60.0  # time after which a snapshot that the client does not read is ended


TOO_MANY_SNAPSHOTS = Refusal(
    Code.RESOURCE_EXHAUSTED, f"holdfast: {MAX_SNAPSHOTS} snapshots of this member are being taken; try again later"
)
BUSY = Refusal(
    Code.UNAVAILABLE, "holdfast: the store has not taken everything that is applied yet; take the snapshot again"
)
UNREAD = Refusal(
    Code.RESOURCE_EXHAUSTED, f"holdfast: the snapshot was given up: nobody read it for {UNREAD_SECONDS:g} s"
)


class MaintenanceService(Service):
    def __init__(self, serving: Serving) -> None:
        super().__init__(serving)
        router = self.router
        self._leader_waits: list[tuple[float, Callable[[], bool], Callable[[bool], None]]] = []
        self.tasks = Tasks()
        self.copies = 0  # copies of the state on disk, for snapshots being sent
        self.defrags, self.snapshots = Histogram(DISK), Histogram(DISK)
        router.unary("/etcdserverpb.Maintenance/Status", self.status)
        router.unary("/etcdserverpb.Maintenance/Alarm", self.alarm)
        router.unary("/etcdserverpb.Maintenance/Hash", self.hash)
        router.unary("/etcdserverpb.Maintenance/HashKV", self.hash_kv)
        router.unary("/etcdserverpb.Maintenance/Downgrade", self.downgrade)
        router.unary("/etcdserverpb.Maintenance/Defragment", self.defragment)
        router.unary("/etcdserverpb.Maintenance/MoveLeader", self.move_leader)
        router.stream("/etcdserverpb.Maintenance/Snapshot", Kind.SERVER_STREAM, lambda call: _Snapshot(self, call))
        router.unary("/grpc.health.v1.Health/Check", self.health)
        self._health_watches: dict[int, _HealthWatch] = {}
        router.stream("/grpc.health.v1.Health/Watch", Kind.SERVER_STREAM, self._watch_health)

    def status(self, call: Call, body: bytes) -> None:
        rpc_pb2.StatusRequest.FromString(body)
        member = self.member(call, learner=True)
        self.require_user(call, member)
        raft, versions = member.raft, self.serving.versions
        size, live = member.store.size()
        response = rpc_pb2.StatusResponse(
            version=versions.server,
            dbSize=size,
            dbSizeInUse=min(live, size),
            leader=raft.leader,
            raftIndex=raft.commit,
            raftTerm=raft.term,
            raftAppliedIndex=member.state.applied_index,
            isLearner=member.is_learner,
            storageVersion=versions.storage,
            dbSizeQuota=self.serving.limits.quota_bytes,
        )
        response.downgradeInfo.SetInParent()
        if not raft.leader:
            response.errors.append(NO_LEADER.message)
        for id, alarm in sorted(member.state.alarms):
            response.errors.append(f"memberID:{id} alarm:{rpc_pb2.AlarmType.Name(alarm)} ")
        self.answer(call, member, response)

    def alarm(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.AlarmRequest.FromString(body)
        member = self.member(call)
        if request.action == request.GET:
            self.require_user(call, member)
            self.answer(call, member, _alarms(member, request.alarm))
            return
        self.require_admin(call, member)
        if request.action not in (request.ACTIVATE, request.DEACTIVATE) or request.alarm == rpc_pb2.NONE:
            self.answer(call, member, rpc_pb2.AlarmResponse())
            return
        self.propose_and_answer(call, member, raft_pb2.Command(alarm=request))

    def hash(self, call: Call, body: bytes) -> None:
        """Hash of everything that this member has applied. As with etcd's hash of its file, only members at the same
        index agree."""
        rpc_pb2.HashRequest.FromString(body)
        member = self.member(call, learner=True)
        self.require_admin(call, member)

        def done(hash: HistoryHash) -> None:
            self.answer(call, member, rpc_pb2.HashResponse(hash=hash.result()))

        self._hash(call, member, 0, done)

    def _hash(self, call: Call, member: Member, revision: int, done: Callable[[HistoryHash], None]) -> None:
        cancel = member.hash(revision, done, lambda error: self.router.fail(call.id, error), owner=call.peer.address)
        self.router.on_cancel(call, cancel)

    def downgrade(self, call: Call, body: bytes) -> None:
        """Refuse to downgrade: there is only one version of the data so far. Requests are validated as in etcd."""
        request = rpc_pb2.DowngradeRequest.FromString(body)
        member = self.member(call)
        self.require_admin(call, member)
        if request.action == request.CANCEL:
            raise RequestError(NO_DOWNGRADE)
        words = request.version.removeprefix("v").split(".")
        if len(words) not in (2, 3) or not all(word.isdigit() for word in words):
            raise RequestError(BAD_DOWNGRADE_VERSION)
        major, minor = self.serving.versions.cluster.split(".")[:2]
        if [int(w) for w in words[:2]] != [int(major), int(minor) - 1]:
            raise RequestError(BAD_DOWNGRADE_TARGET)
        if request.action == request.ENABLE:
            raise RequestError(
                Refusal(
                    Code.UNIMPLEMENTED,
                    "holdfast: there is no older version of the data to go back to; restore a snapshot",
                )
            )
        self.answer(call, member, rpc_pb2.DowngradeResponse(version=f"{major}.{minor}"))

    def hash_kv(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.HashKVRequest.FromString(body)
        member = self.member(call, learner=True)
        self.require_admin(call, member)

        def done(hash: HistoryHash) -> None:
            response = rpc_pb2.HashKVResponse(
                hash=hash.result(), compact_revision=hash.compacted, hash_revision=hash.revision
            )
            self.answer(call, member, response)

        self._hash(call, member, request.revision, done)

    def defragment(self, call: Call, body: bytes) -> None:
        """Compact RocksDB in a thread, to free disk space while the member goes on serving."""
        rpc_pb2.DefragmentRequest.FromString(body)
        member = self.member(call, learner=True)
        self.require_admin(call, member)

        async def work() -> None:
            began = time.monotonic()
            await asyncio.get_running_loop().run_in_executor(None, member.store.compact)
            self.defrags.observe(time.monotonic() - began)
            self.router.reply(call.id, rpc_pb2.DefragmentResponse().SerializeToString())

        self.tasks.spawn(work())

    def move_leader(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MoveLeaderRequest.FromString(body)
        member = self.member(call)
        self.require_admin(call, member)
        raft = member.raft
        target = request.targetID
        if not raft.is_leader:
            raise RequestError(NOT_LEADER)
        if target not in raft.conf.voters:
            raise RequestError(BAD_TRANSFEREE)

        def done(ok: bool) -> None:
            if ok:
                self.router.reply(call.id, rpc_pb2.MoveLeaderResponse().SerializeToString())
            else:
                self.router.fail(call.id, TIMEOUT)

        if target == member.id:
            done(True)
            return
        member.transfer_leadership(target)
        seconds = 2 * raft.settings.election_ns / 1e9
        self.when(lambda: raft.leader == target, seconds, done)

    def when(self, holds: Callable[[], bool], seconds: float, done: Callable[[bool], None]) -> None:
        """Call `done(True)` at the end of the first turn in which `holds()` is true, or `done(False)` after
        `seconds`."""
        self._leader_waits.append((time.monotonic() + seconds, holds, done))

    def turn_ended(self) -> None:
        for watch in self._health_watches.values():
            watch.tell()
        if self._leader_waits:
            now = time.monotonic()
            waits, self._leader_waits = self._leader_waits, []
            for until, holds, done in waits:
                if holds():
                    done(True)
                elif now >= until:
                    done(False)
                else:
                    self._leader_waits.append((until, holds, done))

    def health(self, call: Call, body: bytes) -> None:
        request = health_pb2.HealthCheckRequest.FromString(body)
        if request.service:
            raise RequestError(Refusal(Code.NOT_FOUND, "unknown service"))
        self.router.reply(call.id, self._health())

    def _health(self) -> bytes:
        kinds = health_pb2.HealthCheckResponse
        status = kinds.SERVING if self.node.serving else kinds.NOT_SERVING
        return health_pb2.HealthCheckResponse(status=status).SerializeToString()

    def _watch_health(self, call: Call) -> _HealthWatch:
        watch = self._health_watches[call.id] = _HealthWatch(self._health_watches, self.router, call, self._health)
        return watch


def _alarms(member: Member, kind: int) -> rpc_pb2.AlarmResponse:
    """The active alarms of kind `kind`; NONE: of all kinds."""
    response = rpc_pb2.AlarmResponse()
    for id, alarm in sorted(member.state.alarms):
        if kind in (rpc_pb2.NONE, alarm):
            response.alarms.add(memberID=id, alarm=alarm)
    return response


class _HealthWatch:
    """A client that watches health: it is sent the status now and whenever it changes."""

    def __init__(
        self, watches: dict[int, _HealthWatch], router: Router, call: Call, health: Callable[[], bytes]
    ) -> None:
        self._watches = watches
        self._router = router
        self._call = call
        self._health = health
        self._told: bytes | None = None

    def on_message(self, body: bytes) -> None:
        if health_pb2.HealthCheckRequest.FromString(body).service:
            raise RequestError(Refusal(Code.NOT_FOUND, "unknown service"))
        self.tell()

    def tell(self) -> None:
        now = self._health()
        if now != self._told:
            self._told = now
            self._router.send(self._call.id, now)

    def on_half_close(self) -> None:
        """Nothing to do: clients half-close after their one request."""

    def on_cancelled(self) -> None:
        self._watches.pop(self._call.id, None)

    def on_over(self) -> None:
        """Nothing to do: a change is only a few bytes."""

    def on_writable(self) -> None:
        """See `on_over`."""


class _Snapshot:
    """Streams a copy of the state in the format of `storage.archive`."""

    def __init__(self, service: MaintenanceService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call, learner=True)
        self._caller = service.caller(call, self._member)
        self._require_admin()
        self._archive: io.BufferedRandom | None = None
        self._sum = hashlib.sha256()
        self._remaining = 0
        self._gone = self._begun = False
        self._writable = asyncio.Event()
        self._writable.set()

    def on_message(self, body: bytes) -> None:
        rpc_pb2.SnapshotRequest.FromString(body)
        if self._begun:
            return
        if self._service.copies >= MAX_SNAPSHOTS:
            raise RequestError(TOO_MANY_SNAPSHOTS)
        self._begun = True
        self._service.copies += 1
        self._service.tasks.spawn(self._run())

    def on_half_close(self) -> None:
        """Nothing to do: clients half-close after their one request."""

    def on_cancelled(self) -> None:
        self._gone = True
        self._writable.set()

    def on_writable(self) -> None:
        self._writable.set()

    def on_over(self) -> None:
        self._writable.clear()

    async def _run(self) -> None:
        member, router, call = self._member, self._service.router, self._call
        loop = asyncio.get_running_loop()
        place = member.states.checkpoint_path()
        archive = place.with_suffix(".tar")
        began = time.monotonic()
        try:
            await loop.run_in_executor(None, member.store.verify)  # never back up damaged data
            await loop.run_in_executor(None, member.store.flush)
            if member.state.busy:
                raise RequestError(BUSY)
            # On the loop in one turn, so that the manifest is of exactly this state.
            member.store.checkpoint(place)
            manifest = self._manifest(member)
            await loop.run_in_executor(None, pack, place, archive, manifest)
            self._remaining = archive.stat().st_size
            with archive.open("rb") as source:
                while (blob := await loop.run_in_executor(None, source.read, BLOB_BYTES)) and not self._gone:
                    self._require_admin()  # the right may have been revoked since the stream began
                    self._sum.update(blob)
                    self._remaining -= len(blob)
                    self._send(blob)
                    router.flush()
                    async with asyncio.timeout(UNREAD_SECONDS):
                        await self._writable.wait()
            if not self._gone:
                self._send(self._sum.digest())
                router.finish(call.id)
                self._service.snapshots.observe(time.monotonic() - began)
        except TimeoutError:
            router.fail(call.id, UNREAD)
        except RequestError as error:
            router.fail(call.id, error.refusal)
        except StateDamaged:
            router.fail(call.id, STATE_DAMAGED)
        except Exception as error:  # rocksdict raises plain Exception
            log.error("a snapshot cannot be made: %s", error)
            router.fail(call.id, Refusal(Code.INTERNAL, f"holdfast: cannot make the snapshot: {error}"))
        finally:
            router.flush()
            archive.unlink(missing_ok=True)
            await loop.run_in_executor(None, lambda: rmtree(place, ignore_errors=True))
            self._service.copies -= 1

    def _require_admin(self) -> None:
        self._member.state.auth.require_admin(self._caller.standing())

    def _send(self, blob: bytes) -> None:
        response = rpc_pb2.SnapshotResponse(
            header=self._service.header(self._member),
            remaining_bytes=self._remaining,
            blob=blob,
            version=self._service.serving.versions.server,
        )
        self._service.router.send(self._call.id, response.SerializeToString())

    def _manifest(self, member: Member) -> Manifest:
        state = member.state
        return Manifest(
            cluster_id=self._service.node.data.identity.cluster_id,
            epoch=state.epoch,
            revision=state.space.revision,
            index=state.applied_index,
            term=state.applied_term,
        )
