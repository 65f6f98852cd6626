"""A lock that fences: one holder at a time, in the order of asking, and a token that tells holders apart.

In the same queue as etcd's `concurrency.Mutex` and its lock service of the same name. Mutual exclusion holds as long as
holders respect the end of their sessions (`lost`, `check`); what must hold in any case has to compare the token.
"""

from __future__ import annotations

import contextlib
from types import TracebackType

from holdfast.client.errors import ClientError
from holdfast.client.values import to_bytes
from holdfast.recipes.liveness import State
from holdfast.recipes.place import Place, PlaceLost, new_name
from holdfast.recipes.space import SessionLost, Space, check, deadline
from holdfast.recipes.token import Token


class NotHeld(ClientError):
    """It was to be released, but was not held."""


class AlreadyHeld(ClientError):
    """This object already holds the lock. To wait for oneself would be for ever."""


class Held:
    """What a place in a queue gives its owner: the base of locks, permits and leadership.

    One object is for one holder at a time; it is free again after `release`."""

    def __init__(self, space: Space, name: str | bytes) -> None:
        self._space = space
        self._prefix = to_bytes(name) + b"/"
        self._place: Place | None = None  # entered, perhaps without its turn
        self._mine = False  # it was its turn

    def _new_place(self) -> Place:
        return Place(self._space, self._own_key(), self._prefix)

    def _own_key(self, kind: bytes = b"") -> bytes:
        return self._prefix + kind + new_name(self._space)

    @property
    def held(self) -> bool:
        """Whether it is certainly held: by what the session knows, without asking a server."""
        return self._mine and self._space.state() is State.SAFE

    @property
    def owned(self) -> bool:
        """Whether it was acquired and not released, even if the session may have ended since."""
        return self._mine

    @property
    def token(self) -> Token:
        """The holder's fencing token. Raises NotHeld."""
        place = self._require()
        return Token(self._space.epoch, place.revision, place.key)

    def check(self) -> None:
        """Raise SessionLost or NotHeld unless it is certainly held."""
        self._require()
        check(self._space)

    def _require(self) -> Place:
        if self._place is None or not self._mine:
            raise NotHeld(f"{self._prefix[:-1]!r} is not held by this object")
        return self._place

    async def acquire(self, timeout: float | None = None, value: str | bytes = b"") -> bool:
        """Wait until it is held. False: not within `timeout` seconds. 0: do not wait for others; the servers have two
        seconds to answer.

        Raises AlreadyHeld, SessionLost, PlaceLost (somebody deleted the key), or another ClientError. When it fails or
        is cancelled, nothing is held, and nobody waits behind it."""
        if self._place is not None:
            raise AlreadyHeld(f"{self._prefix[:-1]!r} is already held, or waited for, by this object")
        until = deadline(self._space, timeout)
        self._place = place = self._new_place()
        try:
            await place.enter(to_bytes(value), until)
            if timeout != 0:
                await place.turn(until)
            elif not await place.has_turn(until):
                self._give_up(place)
                return False
        except TimeoutError:
            self._give_up(place)
            return False
        except BaseException:
            self._give_up(place)
            raise
        self._mine = True
        return True

    def _give_up(self, place: Place) -> None:
        self._place = None
        place.abandon()

    async def release(self) -> None:
        """Let the next one have it. Raises NotHeld; what does not get through now goes on in the background."""
        place = self._require()
        self._place, self._mine = None, False
        await place.leave()

    async def confirm(self) -> None:
        """Ask the cluster whether it is still held. Raises PlaceLost if not, and then it can be acquired anew."""
        place = self._require()
        try:
            await place.older()
        except PlaceLost:
            self._place, self._mine = None, False
            raise
        check(self._space)

    async def __aenter__(self) -> Token:
        """Acquire it for a block, which is ended with SessionLost as soon as it may be somebody else's."""
        await self.acquire()
        self._guard = self._space.guard()
        await self._guard.__aenter__()
        return self.token

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._guard.__aexit__(kind, error, trace)
        finally:
            if self._mine:
                with contextlib.suppress(SessionLost):  # it goes with its session
                    await self.release()


class Lock(Held):
    """Mutual exclusion under a name. Not reentrant: a second `acquire` of the same object raises AlreadyHeld, and
    another object of the same session waits for the first one."""
