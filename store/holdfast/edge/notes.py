"""What a replica keeps besides its data: small rows in the same store, each under a name. They stay when a snapshot
replaces the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from holdfast.keyrange import prefix_end
from holdfast.kv.store import Family, Pending, StoreBusy

_PREFIX = b"replica/"


class Notes:
    """Each is written at once. If the store refuses that, the row stays pending, as a change of the data would."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending

    def get(self, name: bytes) -> bytes | None:
        return self._pending.get(Family.META, _PREFIX + name)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(rest of the name, value) of those whose names begin so."""
        start = _PREFIX + prefix
        for name, value in self._pending.scan(Family.META, start, prefix_end(start)):
            yield name[len(start) :], value

    def put(self, name: bytes, value: bytes | None) -> None:
        """None: remove it."""
        self._pending.put(Family.META, _PREFIX + name, value)
        with contextlib.suppress(StoreBusy):
            self._pending.flush()
