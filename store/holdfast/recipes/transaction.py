"""Transactions as functions (STM): read and write as in one process; it takes effect at one moment, or runs again.

All reads are of one revision. At the end one transaction of the store compares that nothing that was read has changed:
each key by its mod revision, and each range by both that its keys are as they were, and that none of them is newer than
the revision of the reads. (The latter alone would miss deletions.) So it is serializable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from holdfast.client.errors import ClientError, Compacted
from holdfast.client.values import to_bytes
from holdfast.keyrange import prefix_end
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.recipes.space import Compare, Op, Range, delete, modified, put

T = TypeVar("T")
Commit = Callable[[rpc_pb2.TxnRequest], Awaitable[rpc_pb2.TxnResponse]]
MOST_ATTEMPTS = 100


class Contended(ClientError):
    """What the transaction read had changed each time that it was to take effect."""


class Transaction:
    """What the function of `transact` reads and writes with."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._revision = 0
        self._read: dict[bytes, kv_pb2.KeyValue | None] = {}
        self._ranges: list[bytes] = []
        self._written: dict[bytes, bytes | None] = {}  # None: deleted

    async def get(self, key: str | bytes) -> bytes | None:
        """The value of a key, with what this transaction has written; None if it does not exist."""
        name = to_bytes(key)
        if name in self._written:
            return self._written[name]
        if name not in self._read:
            found = await self._look(Range(key=name))
            self._read[name] = found[0] if found else None
        kv = self._read[name]
        return None if kv is None else kv.value

    async def range(self, prefix: str | bytes) -> dict[bytes, bytes]:
        """All keys below a prefix with their values, with what this transaction has written."""
        start = to_bytes(prefix)
        for kv in await self._look(Range(key=start, range_end=prefix_end(start))):
            self._read[kv.key] = kv
        self._ranges.append(start)
        found = {k: kv.value for k, kv in self._read.items() if kv is not None and k.startswith(start)}
        for key, value in self._written.items():
            if key.startswith(start):
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        return dict(sorted(found.items()))

    def put(self, key: str | bytes, value: str | bytes) -> None:
        self._written[to_bytes(key)] = to_bytes(value)

    def delete(self, key: str | bytes) -> None:
        self._written[to_bytes(key)] = None

    async def _look(self, request: Range) -> list[kv_pb2.KeyValue]:
        request.revision = self._revision
        answer = await self._commit(rpc_pb2.TxnRequest(success=[Op(request_range=request)]))
        if not self._revision:
            self._revision = answer.header.revision
        return list(answer.responses[0].response_range.kvs)

    async def end(self) -> bool:
        """Let it take effect. False: what it read has changed."""
        if not self._written:
            return True  # all that it read is of one revision
        when = [modified(key, kv.mod_revision if kv is not None else 0) for key, kv in self._read.items()]
        when += [_none_newer(prefix, self._revision) for prefix in self._ranges]
        then = [delete(key) if value is None else put(key, value) for key, value in self._written.items()]
        return (await self._commit(rpc_pb2.TxnRequest(compare=when, success=then))).succeeded


def _none_newer(prefix: bytes, revision: int) -> Compare:
    """That no key below the prefix was changed after `revision`."""
    compare = Compare(key=prefix, range_end=prefix_end(prefix), target=Compare.MOD, result=Compare.LESS)
    compare.mod_revision = revision + 1
    return compare


async def transact(commit: Commit, work: Callable[[Transaction], Awaitable[T]], attempts: int = MOST_ATTEMPTS) -> T:
    """Run `work` until it takes effect; returns what it returned then. `commit`: `Client.commit`.

    `work` may run several times, and what else it does happens each time. Raises Contended after so many attempts, what
    `work` raises, and ClientErrors, among them OutcomeUnknown: then it may have taken effect."""
    for _ in range(attempts):
        transaction = Transaction(commit)
        try:
            result = await work(transaction)
            if await transaction.end():
                return result
        except Compacted:
            continue  # it took so long that its revision is gone
    raise Contended(f"what it read had changed {attempts} times")
