"""etcdserverpb.Maintenance and grpc.health.v1: status, hashes, snapshots, moving the leader."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

from holdfast.api.base import ETCD_VERSION, Service
from holdfast.api.router import Router
from holdfast.front.calls import Call, Finish, Kind
from holdfast.member.driver import Member
from holdfast.member.node import Node, State
from holdfast.proto import health_pb2, rpc_pb2
from holdfast.status import BAD_TRANSFEREE, NOT_LEADER, TIMEOUT, Code, RequestError
from holdfast.tasks import Tasks

SNAPSHOT_FORMAT = 1
BLOB_BYTES = 32 << 10
QUOTA_BYTES = 2 << 30


class MaintenanceService(Service):
    def __init__(self, router: Router, node: Node) -> None:
        super().__init__(router, node)
        self._leader_waits: list[tuple[float, Callable[[], bool], Callable[[bool], None]]] = []
        self.tasks = Tasks()
        router.unary("/etcdserverpb.Maintenance/Status", self.status)
        router.unary("/etcdserverpb.Maintenance/Alarm", self.alarm)
        router.unary("/etcdserverpb.Maintenance/HashKV", self.hash_kv)
        router.unary("/etcdserverpb.Maintenance/Defragment", self.defragment)
        router.unary("/etcdserverpb.Maintenance/MoveLeader", self.move_leader)
        router.stream("/etcdserverpb.Maintenance/Snapshot", Kind.SERVER_STREAM, lambda call: _Snapshot(self, call))
        router.unary("/grpc.health.v1.Health/Check", self.health)

    def status(self, call: Call, body: bytes) -> None:
        rpc_pb2.StatusRequest.FromString(body)
        member = self.member(call, learner=True)
        core = member.core
        size, live = member.store.size()
        response = rpc_pb2.StatusResponse(
            version=ETCD_VERSION,
            dbSize=size,
            dbSizeInUse=min(live, size),
            leader=core.leader,
            raftIndex=core.raft.commit,
            raftTerm=core.term,
            raftAppliedIndex=core.machine.applied_index,
            isLearner=core.id in core.raft.conf.learners,
            storageVersion="3.6.0",
            dbSizeQuota=QUOTA_BYTES,
        )
        if not core.leader:
            response.errors.append("etcdserver: no leader")
        self.answer(call, member, response)

    def alarm(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.AlarmRequest.FromString(body)
        if request.action != request.GET:
            raise RequestError(Code.UNIMPLEMENTED, "holdfast: alarms can only be read; none is ever raised yet")
        self.answer(call, self.member(call), rpc_pb2.AlarmResponse())

    def hash_kv(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.HashKVRequest.FromString(body)
        member = self.member(call, learner=True)
        crc, compacted, revision = member.core.machine.space.hash(request.revision)
        response = rpc_pb2.HashKVResponse(hash=crc, compact_revision=compacted, hash_revision=revision)
        self.answer(call, member, response)

    def defragment(self, call: Call, body: bytes) -> None:
        """Give space back while serving: RocksDB compacts in the background."""
        rpc_pb2.DefragmentRequest.FromString(body)
        member = self.member(call, learner=True)

        async def work() -> None:
            await asyncio.get_running_loop().run_in_executor(None, member.store.compact)
            self.router.reply(call.id, rpc_pb2.DefragmentResponse().SerializeToString())

        self.tasks.spawn(work())

    def move_leader(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.MoveLeaderRequest.FromString(body)
        member = self.member(call)
        core = member.core
        target = request.targetID
        if not core.is_leader:
            raise NOT_LEADER
        if target not in core.raft.conf.voters:
            raise BAD_TRANSFEREE

        def done(ok: bool) -> None:
            if ok:
                self.router.reply(call.id, rpc_pb2.MoveLeaderResponse().SerializeToString())
            else:
                self.router.fail(call.id, TIMEOUT)

        if target == core.id:
            done(True)
            return
        member.transfer_leadership(target)
        seconds = 2 * core.settings.election_ns / 1e9
        self.when(lambda: core.leader == target, seconds, done)

    def when(self, holds: Callable[[], bool], seconds: float, done: Callable[[bool], None]) -> None:
        """Call `done(True)` at the end of the first turn in which `holds`, or `done(False)` after `seconds`."""
        self._leader_waits.append((time.monotonic() + seconds, holds, done))

    def turn_ended(self) -> None:
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
            raise RequestError(Code.NOT_FOUND, "unknown service")
        serving = self.node.state is State.MEMBER
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        self.router.reply(call.id, health_pb2.HealthCheckResponse(status=status).SerializeToString())


class _Snapshot:
    """Streams a copy of the state: a tar archive of a RocksDB checkpoint with a manifest, then its SHA-256.

    A tar archive is a multiple of 512 bytes long, which is what etcdctl checks a snapshot for.
    """

    def __init__(self, service: MaintenanceService, call: Call) -> None:
        self._service = service
        self._call = call
        self._member = service.member(call, learner=True)
        self._archive: io.BufferedRandom | None = None
        self._sum = hashlib.sha256()
        self._remaining = 0
        self._gone = False
        self._writable = asyncio.Event()
        self._writable.set()

    def on_message(self, body: bytes) -> None:
        rpc_pb2.SnapshotRequest.FromString(body)
        self._service.tasks.spawn(self._run())

    def on_half_close(self) -> None:
        """Usual after the one request."""

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
        try:
            await loop.run_in_executor(None, member.store.flush)
            member.store.checkpoint(place)
            manifest = self._manifest(member)
            await loop.run_in_executor(None, _pack, place, archive, manifest)
            self._remaining = archive.stat().st_size
            with archive.open("rb") as source:
                while (blob := await loop.run_in_executor(None, source.read, BLOB_BYTES)) and not self._gone:
                    self._sum.update(blob)
                    self._remaining -= len(blob)
                    self._send(blob)
                    router.flush()
                    await self._writable.wait()
            if not self._gone:
                self._send(self._sum.digest())
                router.act(Finish(call.id))
                router.forget(call.id)
        except OSError as error:
            router.fail(call.id, RequestError(Code.INTERNAL, f"holdfast: cannot make the snapshot: {error}"))
        finally:
            archive.unlink(missing_ok=True)
            await loop.run_in_executor(None, lambda: rmtree(place, ignore_errors=True))

    def _send(self, blob: bytes) -> None:
        response = rpc_pb2.SnapshotResponse(
            header=self._service.header(self._member),
            remaining_bytes=self._remaining,
            blob=blob,
            version=ETCD_VERSION,
        )
        self._service.router.send(self._call.id, response.SerializeToString())

    def _manifest(self, member: Member) -> bytes:
        machine = member.core.machine
        return json.dumps(
            {
                "format": f"holdfast snapshot {SNAPSHOT_FORMAT}",
                "cluster_id": f"{self._service.node.data.identity.cluster_id:x}",
                "epoch": machine.epoch,
                "revision": machine.space.revision,
                "index": machine.applied_index,
                "term": machine.applied_term,
            }
        ).encode()


def _pack(place: Path, archive: Path, manifest: bytes) -> None:
    with tarfile.open(archive, "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
        for file in sorted(place.iterdir()):
            tar.add(file, f"state/{file.name}")
