"""A leader among candidates, as etcd's `concurrency.Election` has it: the same keys, so both may stand.

A leader is a leader as long as its session certainly lives. What it does in the name of its office carries its token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from holdfast.client.values import to_bytes
from holdfast.keyrange import prefix_end
from holdfast.recipes.lock import Held
from holdfast.recipes.place import PlaceLost
from holdfast.recipes.space import Wanted, created, insist, kvs, oldest, put


class Leader(NamedTuple):
    """Who leads: what it proclaims, its key, and since which revision."""

    value: bytes
    key: bytes
    revision: int


class Election(Held):
    """`await election.campaign("host-1")` waits until this candidate leads."""

    async def campaign(self, value: str | bytes, timeout: float | None = None) -> bool:
        """Stand, and wait until this candidate leads. False: not within `timeout` seconds. See `Lock.acquire`."""
        return await self.acquire(timeout, value)

    async def proclaim(self, value: str | bytes) -> None:
        """Change what the leader says of itself. Raises NotHeld, and PlaceLost if it is not the leader any more."""
        place = self._require()
        done = await insist(
            self._space,
            when=[created(place.key, place.revision)],
            then=[put(place.key, to_bytes(value), self._space.lease)],
        )
        if not done.succeeded:
            self._place, self._mine = None, False
            raise PlaceLost(place.key)

    async def resign(self) -> None:
        """Let the next candidate lead. Raises NotHeld."""
        await self.release()

    async def leader(self) -> Leader | None:
        """Who leads now."""
        return (await self._newest())[0]

    async def observe(self) -> AsyncIterator[Leader | None]:
        """Who leads, and each time that another one leads or the leader proclaims something else; None: nobody. What
        lasts only a moment may be missed."""
        last: tuple[Leader | None, int] | None = None
        while True:
            found, revision, modified = await self._newest()
            if last != (found, modified):
                last = (found, modified)
                yield found
            anyone = Wanted(self._prefix, prefix_end(self._prefix), deletes=False)
            wanted = anyone if found is None else Wanted(found.key, deletes=False)
            await self._space.change([wanted], revision + 1)

    async def _newest(self) -> tuple[Leader | None, int, int]:
        """Who leads, at which revision, and when its key was changed."""
        answer = await insist(self._space, then=[oldest(self._prefix, limit=1)])
        if not kvs(answer):
            return None, answer.header.revision, 0
        first = kvs(answer)[0]
        return Leader(first.value, first.key, first.create_revision), answer.header.revision, first.mod_revision
