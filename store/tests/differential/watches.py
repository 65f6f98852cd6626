"""A watch stream to each side, and what came on it, put so that it can be compared.

How events are put together in messages is each server's own; compared are, for every watch, its answers and events in
order, each event with the revision it is of.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc
from holdfast.proto import rpc_pb2

from .sides import Metadata, Side

PATH = "/etcdserverpb.Watch/Watch"
DRAIN_SECONDS = 20.0


class WatchSide:
    """One stream to one server."""

    def __init__(self, side: Side, metadata: Metadata = ()) -> None:
        self._side = side
        self._requests: queue.SimpleQueue[rpc_pb2.WatchRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[rpc_pb2.WatchResponse | None] = queue.SimpleQueue()
        self._call = side.stream(PATH, iter(self._requests.get, None), rpc_pb2.WatchResponse, metadata)
        self.seen: dict[int, list[Any]] = {}
        self.created = 0
        self.progressed = 0
        self._forgotten: set[int] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self._answers.put(answer)
        except grpc.RpcError:
            pass
        self._answers.put(None)

    def send(self, request: rpc_pb2.WatchRequest) -> None:
        self._requests.put(request)

    def create(self, request: rpc_pb2.WatchCreateRequest) -> None:
        """Ask for a watch, and wait until it is there, or refused."""
        before = self.created
        self.send(rpc_pb2.WatchRequest(create_request=request))
        while self.created == before:
            assert self.receive(DRAIN_SECONDS), f"{self._side.name} does not answer\n{self._side.failed()}"

    def receive(self, seconds: float) -> bool:
        """Take one message, if one comes in time."""
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return False
        if answer is None:
            raise AssertionError(f"{self._side.name} ended the watch stream\n{self._side.failed()}")
        if answer.watch_id == -1 and not answer.created:
            self.progressed = answer.header.revision
            return True
        if answer.canceled and answer.watch_id in self._forgotten:
            self._forgotten.discard(answer.watch_id)
            return True
        if answer.compact_revision and self._side.name == "etcd":
            self._cancel_for_good(answer.watch_id)
        told = self.seen.setdefault(answer.watch_id, [])
        if answer.created or answer.canceled:
            at = answer.header.revision if answer.created and not answer.canceled else 0
            self.created += answer.created
            told.append((answer.created, answer.canceled, answer.cancel_reason, answer.compact_revision, at))
        for event in answer.events:
            if answer.header.revision < event.kv.mod_revision:
                raise AssertionError(f"{self._side.name}: an event of a revision above the header's: {answer}")
            told.append(_event(event))
        return True

    def _cancel_for_good(self, id: int) -> None:
        """etcd keeps a watch that it ended for want of history among the stream's, as one that is never synced: no
        progress is reported on that stream any more, and its id stays taken, until the client cancels what has ended.
        Ours lets go of it."""
        self._forgotten.add(id)
        self.send(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=id)))

    def wait_for(self, revision: int) -> None:
        """Until everything up to `revision` has been told."""
        patience = round(DRAIN_SECONDS / 0.05)
        while self.progressed < revision:
            self.send(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
            while self.receive(0.05) and self.progressed < revision:
                pass
            patience -= 1
            assert patience, f"{self._side.name} reports no progress to {revision}: {self.seen}\n{self._side.failed()}"

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()


def _event(event: Any) -> tuple[Any, ...]:
    return (
        event.type,
        event.kv.SerializeToString(deterministic=True),
        event.prev_kv.SerializeToString(deterministic=True) if event.HasField("prev_kv") else None,
    )
