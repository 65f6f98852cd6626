"""Owners take turns: a queue that serves one item of each owner in turn, so that one with many delays only itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Items by owner and id. The items of one owner are served in the order in which they were added."""

    def __init__(self) -> None:
        self._of: OrderedDict[Hashable, OrderedDict[int, T]] = OrderedDict()  # the owner to serve next is first

    def __bool__(self) -> bool:
        return bool(self._of)

    def __iter__(self) -> Iterator[T]:
        for items in self._of.values():
            yield from items.values()

    def add(self, owner: Hashable, id: int, item: T) -> None:
        items = self._of.get(owner)
        if items is None:
            items = self._of[owner] = OrderedDict()
        items[id] = item

    def next(self) -> tuple[Hashable, int, T]:
        """Remove the next item. Its owner's other items are served after those of all other owners."""
        owner, items = self._of.popitem(last=False)
        id, item = items.popitem(last=False)
        if items:
            self._of[owner] = items
        return owner, id, item

    def take(self, owner: Hashable, count: int) -> list[tuple[int, T]]:
        """Remove the first items of an owner, at most `count`."""
        items = self._of.get(owner)
        if items is None:
            return []
        taken = [items.popitem(last=False) for _ in range(min(count, len(items)))]
        if not items:
            del self._of[owner]
        return taken

    def remove(self, owner: Hashable, id: int) -> bool:
        """Remove an item. Returns whether it was there."""
        items = self._of.get(owner)
        if items is None or items.pop(id, None) is None:
            return False
        if not items:
            del self._of[owner]
        return True

    def clear(self) -> None:
        self._of.clear()
