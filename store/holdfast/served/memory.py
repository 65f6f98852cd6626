"""What running scans keep in memory, by owner, and whether one may begin or go on.

A scan keeps the rows of its answer until it is finished, and scans of one connection take turns. So a thousand that
begin together would all keep something, and each would grow. Above a bound only one scan of an owner goes on.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

OWN_BYTES = 32 << 20  # that running scans of one owner keep, above which only one of them goes on
ALL_BYTES = 256 << 20  # of all owners: above, the same holds for each that keeps more than FLOOR_BYTES
FLOOR_BYTES = 1 << 20


class Keeper(Protocol):
    """A scan. `held`: bytes that it keeps, as last counted."""

    held: int


class Memory:
    def __init__(self) -> None:
        self._held: dict[Hashable, int] = {}
        self._all = 0
        self._one: dict[Hashable, Keeper] = {}  # that goes on although its owner keeps too much

    def keeps(self, owner: Hashable, scan: Keeper, held: int) -> None:
        """The scan keeps so many bytes; 0: it has ended, or keeps nothing."""
        change, scan.held = held - scan.held, held
        self._all += change
        left = self._held.get(owner, 0) + change
        if left:
            self._held[owner] = left
        else:
            self._held.pop(owner, None)
        if not held and self._one.get(owner) is scan:
            del self._one[owner]

    def allows(self, owner: Hashable, scan: Keeper, *, begun: bool) -> bool:
        """Whether the scan may begin or, if it has `begun`, go on."""
        held = self._held.get(owner, 0)
        if held <= OWN_BYTES and (held <= FLOOR_BYTES or self._all <= ALL_BYTES):
            return True
        return begun and self._one.setdefault(owner, scan) is scan
