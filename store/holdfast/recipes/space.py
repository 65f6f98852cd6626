"""What recipes need of the world: a key space, a session, and a clock. Nothing here does I/O.

Recipes are coroutines that await only the methods of a `Space`. An application runs them over a connection
(`sessions.py`), the simulator over simulated members with a clock of its own; it is the same code.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol

from holdfast.client.errors import ClientError, OutcomeUnknown, Unavailable
from holdfast.keyrange import prefix_end
from holdfast.proto import kv_pb2, rpc_pb2
from holdfast.recipes.liveness import State

Compare = rpc_pb2.Compare
Op = rpc_pb2.RequestOp
Range = rpc_pb2.RangeRequest


TRY_SECONDS = 2.0  # for the servers to answer, where nobody else is waited for
PATIENCE_SECONDS = 10.0  # for the servers to answer what is not to be repeated for as long as the session lives


class SessionLost(ClientError):
    """The session is in jeopardy or has expired: what it protects may belong to somebody else by now."""


class Wanted(NamedTuple):
    """Changes to wait for. `end`: empty for one key. `deletes`: only deletions."""

    key: bytes
    end: bytes = b""
    deletes: bool = True


class Space(Protocol):
    """A key space as one session sees it. Methods that wait raise SessionLost once the session has expired, and those
    with `until` (a time of `now`) raise TimeoutError."""

    @property
    def lease(self) -> int:
        """The session's lease."""

    @property
    def epoch(self) -> int:
        """Grows with each restore of the cluster from a snapshot; 0 where the server does not tell."""

    def state(self) -> State:
        """Whether the session is alive."""

    def nonce(self) -> str:
        """A text that nobody else ever uses in a key."""

    def now(self) -> float:
        """Seconds on a clock that goes on while the machine is suspended."""

    async def txn(
        self, request: rpc_pb2.TxnRequest, until: float | None = None, *, barrier: bool = False
    ) -> rpc_pb2.TxnResponse:
        """Linearizable. `barrier`: no transaction that was begun before it takes effect after it; it waits for those
        that are under way. Not on etcd. Raises a ClientError, above all OutcomeUnknown and Unavailable."""

    async def change(self, wanted: Sequence[Wanted], revision: int, until: float | None = None) -> None:
        """Wait for a wanted change at `revision` or later. It may return without one, for example if history was
        compacted: read again."""

    async def safe(self, until: float | None = None) -> None:
        """Wait until the session is certainly alive."""

    async def pause(self, until: float | None = None) -> None:
        """Wait a little, after a failure."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in the background, until it ends or the session has expired. Who closes the session waits for it."""

    def tend(self, work: Coroutine[Any, Any, None]) -> None:
        """Run this in the background, until it ends or the session is closed or has expired."""

    @property
    def numbered(self) -> bool:
        """Whether the servers number writes, so that `barrier` works. etcd does not."""

    def guard(self) -> AbstractAsyncContextManager[None]:
        """A block that is ended with SessionLost as soon as the session is not certainly alive any more."""


def deadline(space: Space, timeout: float | None) -> float | None:
    """Until when servers may answer. A timeout of 0 is for waiting for others: the servers have a little time then."""
    return None if timeout is None else space.now() + (timeout or TRY_SECONDS)


def check(space: Space) -> None:
    """Raise SessionLost unless the session is certainly alive."""
    if space.state() is not State.SAFE:
        raise SessionLost(f"the session {space.lease:x} is {space.state().value}")


# ---- parts of transactions ---------------------------------------------------------------------------------


def created(key: bytes, revision: int) -> Compare:
    """That the key exists and was created at `revision`; 0: that it does not exist."""
    return Compare(key=key, target=Compare.CREATE, result=Compare.EQUAL, create_revision=revision)


def modified(key: bytes, revision: int) -> Compare:
    """That the newest change of the key was at `revision`; 0: that it does not exist."""
    return Compare(key=key, target=Compare.MOD, result=Compare.EQUAL, mod_revision=revision)


def put(key: bytes, value: bytes, lease: int = 0) -> Op:
    return Op(request_put=rpc_pb2.PutRequest(key=key, value=value, lease=lease))


def delete(key: bytes, end: bytes = b"") -> Op:
    return Op(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key, range_end=end))


def get(key: bytes) -> Op:
    return Op(request_range=Range(key=key))


def below(prefix: bytes, **how: Any) -> Op:
    """The keys below `prefix`; `how`: fields of a RangeRequest."""
    return Op(request_range=Range(key=prefix, range_end=prefix_end(prefix), **how))


def oldest(prefix: bytes, **how: Any) -> Op:
    """The keys below `prefix` in the order of their creation."""
    return below(prefix, sort_target=Range.CREATE, sort_order=Range.ASCEND, **how)


def kvs(response: rpc_pb2.TxnResponse, number: int = 0) -> Sequence[kv_pb2.KeyValue]:
    """What the operation with this number, a range, found."""
    return response.responses[number].response_range.kvs


async def txn(
    space: Space,
    *,
    when: Sequence[Compare] = (),
    then: Sequence[Op] = (),
    otherwise: Sequence[Op] = (),
    until: float | None = None,
    barrier: bool = False,
) -> rpc_pb2.TxnResponse:
    request = rpc_pb2.TxnRequest(compare=when, success=then, failure=otherwise)
    return await space.txn(request, until, barrier=barrier)


async def insist(
    space: Space,
    *,
    when: Sequence[Compare] = (),
    then: Sequence[Op] = (),
    otherwise: Sequence[Op] = (),
    until: float | None = None,
    barrier: bool = False,
) -> rpc_pb2.TxnResponse:
    """A transaction that may take effect twice without harm: repeated as long as the session lives, while no server
    answers or answers are lost."""
    while True:
        try:
            return await txn(space, when=when, then=then, otherwise=otherwise, until=until, barrier=barrier)
        except (OutcomeUnknown, Unavailable):
            await space.pause(until)
