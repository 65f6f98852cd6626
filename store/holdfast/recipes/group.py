"""Groups: who is there, by sessions; and the division of work among those who are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

from holdfast.client.values import to_bytes
from holdfast.keyrange import prefix_end
from holdfast.recipes.lock import AlreadyHeld, Lock, NotHeld
from holdfast.recipes.place import Place, new_name
from holdfast.recipes.space import Space, Wanted, insist, kvs, oldest

HANDOVER_SECONDS = 0.5


class Member(NamedTuple):
    """One that is there: its name and what it says of itself."""

    name: bytes
    value: bytes


class Group:
    """`join` makes this session a member; it is one until it leaves or its session ends."""

    def __init__(self, space: Space, name: str | bytes) -> None:
        self._space = space
        self._prefix = to_bytes(name) + b"/"
        self._place: Place | None = None
        self._name = b""

    async def join(self, value: str | bytes = b"") -> bytes:
        """Become a member. Returns the name of this member. Raises AlreadyHeld."""
        if self._place is not None:
            raise AlreadyHeld(f"this object is already a member of {self._prefix[:-1]!r}")
        self._name = new_name(self._space)
        self._place = place = Place(self._space, self._prefix + self._name, self._prefix)
        try:
            await place.enter(to_bytes(value))
        except BaseException:
            place.abandon()
            self._place = None
            raise
        return self._name

    async def leave(self) -> None:
        """Raises NotHeld if it is no member."""
        place, self._place = self._place, None
        if place is None:
            raise NotHeld(f"this object is no member of {self._prefix[:-1]!r}")
        await place.leave()

    async def members(self) -> list[Member]:
        """Who is there, in the order of joining."""
        return (await self.read())[0]

    async def changes(self) -> AsyncIterator[list[Member]]:
        """Who is there, and again each time that this changes."""
        while True:
            found, revision = await self.read()
            yield found
            await self.changed(revision)

    async def changed(self, revision: int) -> None:
        """Wait until somebody has come or gone after `revision`."""
        await self._space.change([Wanted(self._prefix, prefix_end(self._prefix), False)], revision + 1)

    async def read(self) -> tuple[list[Member], int]:
        """Who is there, in the order of joining, and at which revision."""
        found = await insist(self._space, then=[oldest(self._prefix)])
        members = [Member(kv.key.removeprefix(self._prefix), kv.value) for kv in kvs(found)]
        return members, found.header.revision


class Partitioner:
    """Divides named partitions among the members of a group, so that each is worked on by one at a time.

    Each partition goes to the member that weighs most for it (rendezvous hashing): when one comes or goes, only its
    share moves. A partition is worked on only under its lock, so what moves waits until the one before has let go."""

    def __init__(self, space: Space, name: str | bytes, partitions: Sequence[str]) -> None:
        self._space = space
        self._group = Group(space, to_bytes(name) + b"/members")
        self._locks = {p: Lock(space, to_bytes(name) + b"/locks/" + p.encode()) for p in partitions}
        self._name = b""

    @property
    def mine(self) -> frozenset[str]:
        """The partitions that this member certainly holds."""
        return frozenset(p for p, lock in self._locks.items() if lock.held)

    @property
    def _owned(self) -> frozenset[str]:
        """Those that were acquired and not released, even if nothing is certain just now."""
        return frozenset(p for p, lock in self._locks.items() if lock.owned)

    async def run(self) -> AsyncIterator[frozenset[str]]:
        """Join, and yield the partitions of this member, and again each time that they change. Before the next answer
        is asked for, work on what is not in the newest one any more must have ended: then that is let go."""
        self._name = await self._group.join()
        told: frozenset[str] | None = None
        while True:
            members, revision = await self._group.read()
            names = [member.name for member in members]
            wanted = {p for p in self._locks if names and _heaviest(p, names) == self._name}
            going = self._owned - wanted
            if going:
                told = self.mine - going
                yield told
                for partition in sorted(going):
                    await self._locks[partition].release()
            # Others let go when they have seen the newest members; so does this one, before it waits for long.
            missing = [p for p in sorted(wanted - self._owned) if not await self._locks[p].acquire(HANDOVER_SECONDS)]
            await self._space.safe()  # in jeopardy nothing is certain; a renewal gives all back
            if self.mine != told:
                told = self.mine
                yield told
            if not missing:
                await self._group.changed(revision)

    async def leave(self) -> None:
        """Let go of all partitions and leave the group."""
        for lock in self._locks.values():
            if lock.owned:
                await lock.release()
        await self._group.leave()


def _heaviest(partition: str, members: Sequence[bytes]) -> bytes:
    def weight(member: bytes) -> bytes:
        return blake2b(member + b"/" + partition.encode(), digest_size=8).digest()

    return max(members, key=lambda member: (weight(member), member))
