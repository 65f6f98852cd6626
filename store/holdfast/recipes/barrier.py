"""Barriers: `Barrier` holds back all until it is released; `DoubleBarrier` lets a number of participants begin together
and end together. The keys of `Barrier` are those of etcd's recipe."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.client.errors import ClientError
from holdfast.client.values import to_bytes
from holdfast.keyrange import prefix_end
from holdfast.proto import kv_pb2
from holdfast.recipes.place import Place, PlaceLost, new_name
from holdfast.recipes.space import Compare, Space, Wanted, below, created, deadline, delete, get, insist, kvs, put

_HERE, _LEFT = b"here", b"left"
_COMPARED = 100  # waiters, when the barrier opens or closes; servers limit how much a transaction compares and does


class Broken(ClientError):
    """A participant was lost between the beginning and the end."""


class Barrier:
    """Whoever waits goes on when nobody holds the barrier. It outlives the session of its holder."""

    def __init__(self, space: Space, name: str | bytes) -> None:
        self._space = space
        self._key = to_bytes(name)

    async def hold(self) -> None:
        """Raise the barrier. It is no error if it is raised."""
        await insist(self._space, when=[created(self._key, 0)], then=[put(self._key, b"")])

    async def release(self) -> None:
        """Let all go on that wait."""
        await insist(self._space, then=[delete(self._key)])

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until nobody holds it. False: not within `timeout` seconds. 0: do not wait for others; the servers have
        two seconds to answer."""
        until = deadline(self._space, timeout)
        try:
            while True:
                found = await insist(self._space, then=[get(self._key)], until=until)
                if not kvs(found):
                    return True
                if timeout == 0:
                    return False
                await self._space.change([Wanted(self._key)], found.header.revision + 1, until)
        except TimeoutError:
            return False


class DoubleBarrier:
    """`enter` returns once `count` participants have entered, `leave` once all of them want to leave.

    NAME/waiters/ has a key for each that entered, attached to its session; NAME/ready is made by the one that completes
    the number, and deleted by the first that sees that all want to leave, together with all other keys. The first one
    that enters deletes what a round left whose participants were all lost. Who enters while a round is open waits for
    the next one: it must not hide that a participant of this one was lost.

    The barrier opens only while those that complete the number are all there (of more than 100 participants, 100): a
    request to open it that was under way while they were lost must not let the next round pass."""

    def __init__(self, space: Space, name: str | bytes, count: int) -> None:
        """Raises ValueError if `count` is less than one."""
        if count < 1:
            raise ValueError(f"a barrier for {count} participants: it needs one at least")
        self._space = space
        self._ready = to_bytes(name) + b"/ready"
        self._waiters = to_bytes(name) + b"/waiters/"
        self._count = count
        self._place: Place | None = None
        self._opened = 0  # the revision at which the barrier opened for this one

    async def enter(self, timeout: float | None = None) -> bool:
        """Wait until all have entered. False: not within `timeout` seconds (two for 0), and this one has not entered.
        Raises PlaceLost."""
        until = deadline(self._space, timeout)
        place = Place(self._space, self._waiters + new_name(self._space), self._waiters)
        try:
            await insist(self._space, when=[_nobody(self._waiters)], then=[delete(self._ready)], until=until)
            await place.enter(_HERE, until)
            self._opened = await self._until_ready(place, until)
        except TimeoutError:
            place.abandon()
            return False
        except BaseException:
            place.abandon()
            raise
        self._place = place
        return True

    async def _until_ready(self, place: Place, until: float | None) -> int:
        """Wait until the barrier opens after this place was taken. Returns the revision of that. Raises PlaceLost."""
        space = self._space
        while True:
            found, ready, waiters = await self._read(place, until)
            if not waiters:
                raise PlaceLost(place.key)
            if ready > place.revision:
                return ready
            wanted = [Wanted(self._ready, deletes=False), Wanted(place.key)]
            if ready and any(kv.create_revision < ready for kv in waiters):
                # It opened for others, who have not left: this one is for the next round.
                wanted.append(Wanted(self._waiters, prefix_end(self._waiters)))
            elif ready:  # they were all lost
                await insist(space, when=[created(self._ready, ready)], then=[delete(self._ready)], until=until)
                continue
            elif len(waiters) >= self._count:
                when = [created(self._ready, 0), *_there(waiters[: min(self._count, _COMPARED)])]
                opened = await insist(space, when=when, then=[put(self._ready, b"")], until=until)
                if opened.succeeded:
                    return opened.header.revision
                continue  # it is open, or somebody was lost
            await space.change(wanted, found + 1, until)

    async def _read(self, place: Place, until: float | None = None) -> tuple[int, int, list[kv_pb2.KeyValue]]:
        """The revision, that of the ready key (0: there is none), and who has entered: nobody, if the place is lost."""
        then = [get(self._ready), below(self._waiters)]
        found = await insist(
            self._space, when=[created(place.key, place.revision)], then=then, otherwise=then[:1], until=until
        )
        ready = kvs(found)[0].create_revision if kvs(found) else 0
        return found.header.revision, ready, list(kvs(found, 1)) if found.succeeded else []

    async def leave(self) -> None:
        """Wait until all want to leave. Raises Broken if one of them was lost before, and PlaceLost."""
        place, self._place = self._place, None
        if place is None:
            raise Broken("this participant has not entered")
        try:
            await self._leave(place, self._opened)
        except BaseException:
            place.abandon()
            raise

    async def _leave(self, place: Place, opened: int) -> None:
        space, end = self._space, prefix_end(self._waiters)
        await insist(space, when=[created(place.key, place.revision)], then=[put(place.key, _LEFT, space.lease)])
        while True:
            revision, ready, waiters = await self._read(place)
            if ready != opened:
                return  # another one has seen that all want to leave
            if not waiters:
                raise PlaceLost(place.key)
            inside = [kv for kv in waiters if kv.create_revision < opened]  # others wait for the next round
            if len(inside) < self._count:
                raise Broken(f"{self._count - len(inside)} of {self._count} participants were lost")
            if all(kv.value == _LEFT for kv in inside):
                few = len(inside) <= _COMPARED
                gone = [delete(kv.key) for kv in inside] if few else [delete(self._waiters, end)]
                await insist(space, when=[created(self._ready, ready)], then=[delete(self._ready), *gone])
                return
            await space.change([Wanted(self._waiters, end, deletes=False), Wanted(self._ready)], revision + 1)


def _there(waiters: Sequence[kv_pb2.KeyValue]) -> list[Compare]:
    """That all of these are still there."""
    return [created(kv.key, kv.create_revision) for kv in waiters]


def _nobody(prefix: bytes) -> Compare:
    """That no key below the prefix exists."""
    compare = created(prefix, 0)
    compare.range_end = prefix_end(prefix)
    return compare
