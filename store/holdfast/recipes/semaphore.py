"""At most so many holders at a time, in the order of asking.

The number belongs to the name, not to the caller: the first one writes it down, and whoever means another number is
refused, because two callers with different numbers would not agree on who holds.
"""

from __future__ import annotations

from holdfast.client.errors import ClientError
from holdfast.client.values import to_bytes
from holdfast.recipes.lock import Held
from holdfast.recipes.place import Place
from holdfast.recipes.space import Space, created, deadline, get, insist, kvs, put


class OtherSize(ClientError):
    """The semaphore of this name has another number of permits."""


class Semaphore(Held):
    """One permit of `permits` under a name."""

    def __init__(self, space: Space, name: str | bytes, permits: int) -> None:
        """Raises ValueError if `permits` is less than one."""
        if permits < 1:
            raise ValueError(f"a semaphore of {permits} permits: it needs one at least")
        super().__init__(space, name)
        self.permits = permits
        self._size = to_bytes(name)
        self._agreed = False

    def _new_place(self) -> Place:
        return Place(self._space, self._own_key(), self._prefix, ahead=self.permits - 1)

    async def acquire(self, timeout: float | None = None, value: str | bytes = b"") -> bool:
        """See `Lock.acquire`. Raises OtherSize, too."""
        began = self._space.now()
        try:
            await self._agree(deadline(self._space, timeout))
        except TimeoutError:
            return False
        left = max(0.001, began + timeout - self._space.now()) if timeout else timeout
        return await super().acquire(left, value)

    async def _agree(self, until: float | None) -> None:
        if self._agreed:
            return
        wanted = b"%d" % self.permits
        found = await insist(
            self._space,
            when=[created(self._size, 0)],
            then=[put(self._size, wanted)],
            otherwise=[get(self._size)],
            until=until,
        )
        if not found.succeeded and kvs(found)[0].value != wanted:
            has = kvs(found)[0].value.decode(errors="replace")
            raise OtherSize(
                f"the semaphore {self._size!r} has {has} permits, not {self.permits}; all must mean the same"
            )
        self._agreed = True
