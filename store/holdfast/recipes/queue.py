"""Queues: first in, first out within a priority. A worker claims an item under its session; an item whose worker is
lost is there again. So each item is worked on at least once, and `Item.token` tells what it changes who came later.

NAME/items/PRIORITY/REVISION-NONCE holds the items: REVISION was the newest one when the item was put in, so the order
of names is that of time for all that was not put in at the same moment. NAME/claims/… has the same names.
"""

from __future__ import annotations

from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.client.values import to_bytes
from holdfast.keyrange import prefix_end
from holdfast.proto import rpc_pb2
from holdfast.recipes.place import PlaceLost
from holdfast.recipes.space import (
    PATIENCE_SECONDS,
    Op,
    Range,
    Space,
    Wanted,
    below,
    created,
    deadline,
    delete,
    get,
    insist,
    kvs,
    modified,
    put,
)
from holdfast.recipes.token import Token

PAGE = 64
HIGHEST, DEFAULT, LOWEST = 0, 100, 999


class QueueFull(ClientError):
    """The queue has as many items as it may."""


class Item:
    """An item that this worker has claimed. `done` takes it out of the queue, `release` gives it back."""

    def __init__(self, space: Space, key: bytes, value: bytes, claim: bytes, revision: int) -> None:
        self.key = key
        self.value = value
        self._space = space
        self._claim = claim
        self._revision = revision

    @property
    def token(self) -> Token:
        """Grows with each claim of this item: fence with it what working on the item changes."""
        return Token(self._space.epoch, self._revision, self._claim)

    async def done(self) -> None:
        """Take it out of the queue. Raises PlaceLost if the claim is gone: another worker may have the item."""
        found = await insist(
            self._space,
            when=[created(self._claim, self._revision)],
            then=[delete(self.key), delete(self._claim)],
            otherwise=[get(self.key)],
        )
        if not found.succeeded and kvs(found):
            raise PlaceLost(self._claim)

    async def release(self) -> None:
        """Give it back: another worker may claim it."""
        await insist(self._space, when=[created(self._claim, self._revision)], then=[delete(self._claim)])


class Queue:
    """A queue under a name. `bound`: the most items; 0: any number. All users of a queue mean the same bound."""

    def __init__(self, space: Space, name: str | bytes, bound: int = 0) -> None:
        self._space = space
        self._items, self._claims = to_bytes(name) + b"/items/", to_bytes(name) + b"/claims/"
        self._guard = to_bytes(name) + b"/guard"
        self._bound = bound

    # ---- putting in ----------------------------------------------------------------------------------------

    async def put(self, value: str | bytes, *, priority: int = DEFAULT, timeout: float | None = 0) -> bytes:
        """Put an item in; lower priorities come first. Returns its key. If the queue is full, wait for `timeout`
        seconds (None: as long as it takes). Raises QueueFull, ValueError."""
        if not HIGHEST <= priority <= LOWEST:
            raise ValueError(f"priority {priority}: it is {HIGHEST} to {LOWEST}")
        until = None if timeout is None else self._space.now() + timeout
        try:
            return await self._put(to_bytes(value), priority, until)
        except TimeoutError:
            raise OutcomeUnknown("no server answers: the item may be in the queue, or get there") from None

    async def _put(self, value: bytes, priority: int, until: float | None) -> bytes:
        space, nonce = self._space, self._space.nonce().encode()
        while True:
            patience = space.now() + PATIENCE_SECONDS
            seen = await insist(space, then=[get(self._guard), below(self._items, count_only=True)], until=patience)
            revision, guards = seen.header.revision, kvs(seen)
            if self._bound and seen.responses[1].response_range.count >= self._bound:
                await self._for_room(revision, until)
                continue
            guard = guards[0].mod_revision if guards else 0
            key = b"%s%03d/%020d-%s" % (self._items, priority, revision, nonce)
            when, then = [created(key, 0)], [put(key, value)]
            if self._bound:
                when, then = [*when, modified(self._guard, guard)], [*then, put(self._guard, b"")]
            done = await insist(space, when=when, then=then, otherwise=[get(key)], until=patience)
            if done.succeeded or kvs(done):  # an attempt whose answer was lost has taken effect
                return key

    async def _for_room(self, revision: int, until: float | None) -> None:
        full = QueueFull(f"the queue {self._items[:-7]!r} has {self._bound} items, which is its bound")
        if until is not None and self._space.now() >= until:
            raise full
        try:
            await self._space.change([Wanted(self._items, prefix_end(self._items))], revision + 1, until)
        except TimeoutError:
            raise full from None

    # ---- taking out ----------------------------------------------------------------------------------------

    async def get(self, timeout: float | None = None) -> Item | None:
        """Claim the first item that nobody has claimed. None: there was none within `timeout` seconds. 0: do not wait
        for one; the servers have two seconds to answer. If it is cancelled, nothing stays claimed."""
        space = self._space
        until = deadline(space, timeout)
        try:
            while True:
                item, revision = await self._claim_first(until)
                if item is not None or timeout == 0:
                    return item
                new = Wanted(self._items, prefix_end(self._items), deletes=False)
                await space.change([new, Wanted(self._claims, prefix_end(self._claims))], revision + 1, until)
        except TimeoutError:
            return None

    async def _claim_first(self, until: float | None) -> tuple[Item | None, int]:
        """An item, or None and the revision at which there was none to claim."""
        start = self._items
        while True:
            seen = await insist(self._space, then=[self._page(start), below(self._claims, keys_only=True)], until=until)
            claimed = {kv.key.removeprefix(self._claims) for kv in kvs(seen, 1)}
            page = [kv.key for kv in kvs(seen)]
            free = [key for key in page if key.removeprefix(self._items) not in claimed]
            for key in free:
                item = await self._claim(key, until)
                if item is not None:
                    return item, 0
            if free:
                start = self._items  # others were faster: look again
            elif len(page) < PAGE:
                return None, seen.header.revision
            else:
                start = page[-1] + b"\x00"

    def _page(self, start: bytes) -> Op:
        end = prefix_end(self._items)
        return Op(request_range=Range(key=start, range_end=end, limit=PAGE, keys_only=True))

    async def _claim(self, key: bytes, until: float | None) -> Item | None:
        """Claim this item. None: somebody else has it, or it is done."""
        claim, mark = self._claims + key.removeprefix(self._items), self._space.nonce().encode()
        try:
            return await self._claim_as(key, claim, mark, until)
        except BaseException:
            # The request may have taken effect, or may still do so.
            self._space.spawn(self._unclaim(claim, mark))
            raise

    async def _unclaim(self, claim: bytes, mark: bytes) -> None:
        mine = rpc_pb2.Compare(key=claim, target=rpc_pb2.Compare.VALUE, result=rpc_pb2.Compare.EQUAL, value=mark)
        await insist(self._space, when=[mine], then=[delete(claim)])

    async def _claim_as(self, key: bytes, claim: bytes, mark: bytes, until: float | None) -> Item | None:
        space, there = self._space, created(key, 0)
        there.result = rpc_pb2.Compare.GREATER
        found = await insist(
            space,
            when=[there, created(claim, 0)],
            then=[get(key), put(claim, mark, space.lease)],
            otherwise=[get(claim), get(key)],
            until=until,
        )
        if found.succeeded:
            return Item(space, key, kvs(found)[0].value, claim, found.header.revision)
        mine = [kv for kv in kvs(found) if kv.value == mark]  # an attempt whose answer was lost has taken effect
        if mine and kvs(found, 1):
            return Item(space, key, kvs(found, 1)[0].value, claim, mine[0].create_revision)
        return None
