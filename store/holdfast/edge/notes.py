"""What a replica keeps besides its data: small rows in the same store, each under a name. They stay when a snapshot
replaces the data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from holdfast.keyrange import prefix_end
from holdfast.kv.store import Family, Pending, StoreBusy

_PREFIX = b"replica/"


class Notes:
    """Each is written at once. If the store refuses that, the row stays pending, as a change of the data would."""

    def __init__(self, stores: Callable[[], Sequence[Pending]]) -> None:
        """`stores` returns the one that is served, and, while it is about to take its place, the next one."""
        self._stores = stores

    def get(self, name: bytes) -> bytes | None:
        return self._stores()[0].get(Family.META, _PREFIX + name)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(rest of the name, value) of those whose names begin so."""
        start = _PREFIX + prefix
        for name, value in self._stores()[0].scan(Family.META, start, prefix_end(start)):
            yield name[len(start) :], value

    def put(self, name: bytes, value: bytes | None) -> None:
        """None: remove it."""
        for pending in self._stores():
            pending.put(Family.META, _PREFIX + name, value)
            with contextlib.suppress(StoreBusy):
                pending.flush()
