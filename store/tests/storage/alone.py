"""A cluster of one member, on real files, driven step by step: what `serve` does at a start and at a put, without
sockets and threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from holdfast.machine import Genesis
from holdfast.member.core import MemberCore
from holdfast.member.disk import found_cluster, open_disk
from holdfast.member.interface import Answer, Appended, Campaign, Flushed, Input, Output, Propose
from holdfast.member.recovery import newest_incarnation
from holdfast.proto import kv_pb2, raft_pb2, rpc_pb2
from holdfast.storage.identity import DataDirectory

LATE = 1 << 60


class Alone:
    """Opened as `server` and `node` do it, with their errors."""

    def __init__(self, path: Path) -> None:
        self._data = DataDirectory(path)
        self._now = 0
        self._ids = 0
        try:
            if not self._data.identity.made:
                me = raft_pb2.MemberInfo(id=self._data.identity.volume_id, name="m")
                found_cluster(self._data, Genesis((me,)), 77)
            self._disk = open_disk(path)
        except BaseException:
            self._data.close()
            raise
        self._data.count_on(newest_incarnation(self._disk.store, self._disk.log, self._data.identity.member_id))
        self.core = MemberCore(
            self._data.identity.member_id,
            incarnation=self._data.identity.incarnation,
            now_ns=self._now,
            random=Random(1),
            store=self._disk.store,
            log=self._disk.log,
            hard_state=self._disk.hard_state,
        )
        self._give(Campaign())

    def _give(self, *inputs: Input) -> list[Answer]:
        self._now += 1_000_000
        out = self._step(inputs)
        answers = list(out.answers)
        while out.append is not None or out.more:
            following: list[Input] = []
            if out.append is not None:
                self._disk.durable.append([out.append])
                following.append(Appended(out.append.seq))
            out = self._step(following)
            answers += out.answers
        return answers

    def _step(self, inputs: Sequence[Input]) -> Output:
        out = self.core.step(self._now, inputs)
        if out.forget:
            self._disk.durable.forget(out.forget)
        return out

    def put(self, key: bytes, value: bytes) -> int:
        """Returns the revision of a put that was acknowledged."""
        self._ids += 1
        command = raft_pb2.Command(put=rpc_pb2.PutRequest(key=key, value=value))
        answers = self._give(Propose(self._ids, command, LATE))
        assert [answer.error for answer in answers] == [None]
        return answers[0].revision

    def flush(self, keep: int) -> None:
        """The state is durable, and the log keeps little more than what it lacks."""
        self._disk.store.flush()
        self.core.keep_entries = keep
        self._give(Flushed(self.core.machine.applied_index))

    def content(self) -> dict[bytes, bytes]:
        """Everything that it would answer; reads every row."""
        self._disk.store.verify()
        scan = self.core.machine.space.scan(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
        while not scan.advance(1 << 20):
            pass
        found = map(kv_pb2.KeyValue.FromString, scan.result()[0])
        return {kv.key: kv.value for kv in found}

    @property
    def term(self) -> int:
        return self.core.term

    def close(self) -> None:
        self._disk.durable.close()
        self._disk.store.close()
        self._data.close()
