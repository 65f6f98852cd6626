"""A place in a queue of keys, in the order of their creation: what locks, semaphores and elections are made of.

The layout is that of etcd's own recipes: PREFIX/… holds one key for each that waits, attached to its session's lease,
and the order is that of create revisions. So applications in other languages may wait in the same queue. Keys have
names that are never used again: a second acquisition by the same session is a place of its own, and a deletion that
comes late cannot hit a newer place (etcd#22082).

Invariants:
1. A place is first only if, at one revision, its own key exists and no older key of the queue does (etcd#19597,
   etcd#16221), and the session was certainly alive after that was asked.
2. A place that was left, or whose acquisition was given up, is deleted as long as the session lives. An attempt to
   enter that comes late does not bring it back. On etcd nothing can prevent that, so there it is deleted again.
"""

from __future__ import annotations

import contextlib

from holdfast.client.errors import ClientError, OutcomeUnknown, Unavailable
from holdfast.recipes.liveness import State
from holdfast.recipes.space import Op, Range, Space, Wanted, below, created, delete, get, insist, kvs, put, txn

LATE_SECONDS = 30.0  # so late may a request take effect on etcd


class PlaceLost(ClientError):
    """The key of this place is gone: its lease was revoked, or somebody deleted it."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"the key {key!r} is gone: its lease was revoked, or somebody deleted it")
        self.key = key


def new_name(space: Space) -> bytes:
    """The last part of a key: whose it is, and a text that is used once."""
    return b"%x-%s" % (space.lease, space.nonce().encode())


class Place:
    """One key in a queue. `revision` is its create revision; 0: it was not entered yet."""

    def __init__(self, space: Space, key: bytes, queue: bytes, ahead: int = 0) -> None:
        """`queue`: the prefix of the keys that count. `ahead`: how many older ones may be left at its turn."""
        self.key = key
        self.revision = 0
        self._under_way = False  # an attempt to enter was not answered, and may still take effect
        self._space = space
        self._queue = queue
        self._ahead = ahead

    async def enter(self, value: bytes = b"", until: float | None = None) -> None:
        """Take the place at the end of the queue. Raises TimeoutError."""
        space = self._space
        when, then = [created(self.key, 0)], [put(self.key, value, space.lease)]
        otherwise = [get(self.key)]  # an earlier attempt, whose answer was lost, has taken effect
        self._under_way = True
        try:
            taken = await txn(space, when=when, then=then, otherwise=otherwise, until=until)
            self._under_way = False
        except (OutcomeUnknown, Unavailable):
            await space.pause(until)
            taken = await insist(space, when=when, then=then, otherwise=otherwise, until=until)
        self.revision = taken.header.revision if taken.succeeded else kvs(taken)[0].create_revision

    async def turn(self, until: float | None = None) -> None:
        """Wait until it is this place's turn. Raises PlaceLost and TimeoutError."""
        space = self._space
        while True:
            older, revision = await self.older(until)
            if len(older) > self._ahead:
                await space.change([*(Wanted(key) for key in older), Wanted(self.key)], revision + 1, until)
            elif space.state() is State.SAFE:
                return
            else:
                await space.safe(until)

    async def has_turn(self, until: float | None = None) -> bool:
        """Whether it is this place's turn, without waiting for others. Raises PlaceLost and TimeoutError."""
        older, _ = await self.older(until)
        return len(older) <= self._ahead and self._space.state() is State.SAFE

    async def older(self, until: float | None = None) -> tuple[list[bytes], int]:
        """The newest keys of the queue that are older than this one, and the revision of that. Raises PlaceLost."""
        found = await insist(self._space, when=[created(self.key, self.revision)], then=[self._before()], until=until)
        if not found.succeeded:
            raise PlaceLost(self.key)
        return [kv.key for kv in kvs(found)], found.header.revision

    def _before(self) -> Op:
        return below(
            self._queue,
            max_create_revision=self.revision - 1,
            sort_target=Range.CREATE,
            sort_order=Range.DESCEND,
            limit=self._ahead + 1,
            keys_only=True,
        )

    async def leave(self) -> None:
        """Give the place up. What does not get through now goes on in the background."""
        try:
            await self._delete()
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Give the place up in the background."""
        self._space.spawn(self._delete())

    async def _delete(self) -> None:
        when = [created(self.key, self.revision)] if self.revision else []
        gone = await insist(self._space, when=when, then=[delete(self.key)], barrier=self._under_way)
        if self._under_way and not self._space.numbered:
            self._space.tend(self._keep_deleted(gone.header.revision))

    async def _keep_deleted(self, revision: int) -> None:
        """Delete it again if an attempt to enter comes late."""
        space = self._space
        until = space.now() + LATE_SECONDS
        with contextlib.suppress(TimeoutError):
            while True:
                await space.change([Wanted(self.key, deletes=False)], revision + 1, until)
                gone = await insist(space, then=[delete(self.key)])
                revision = gone.header.revision
