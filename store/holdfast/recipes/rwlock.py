"""Readers and writers: many readers at once, or one writer. In the queue of etcd's `recipe.RWMutex`.

A reader waits for the last writer that came before it, a writer for all that came before it; so neither starves.
"""

from __future__ import annotations

from holdfast.client.values import to_bytes
from holdfast.recipes.lock import Held
from holdfast.recipes.place import Place
from holdfast.recipes.space import Space

_READ, _WRITE = b"read/", b"write/"


class _Side(Held):
    def __init__(self, space: Space, name: str | bytes, own: bytes, queue: bytes) -> None:
        super().__init__(space, name)
        self._own, self._queue = own, self._prefix + queue

    def _new_place(self) -> Place:
        return Place(self._space, self._own_key(self._own), self._queue)


class RWLock:
    """`async with rw.reading:` and `async with rw.writing:`; each of the two is used as a `Lock` is."""

    def __init__(self, space: Space, name: str | bytes) -> None:
        self.name = to_bytes(name)
        self.reading = _Side(space, name, _READ, _WRITE)
        self.writing = _Side(space, name, _WRITE, b"")
