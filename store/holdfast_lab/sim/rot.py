"""Unreadable rows of a state: reading one raises an error, as a wrong checksum does in RocksDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from holdfast.kv.store import Family, MemoryStore, StateDamaged, Write


class RottenStore(MemoryStore):
    """A store with damaged rows. `on_damage` is called before the error is raised, as in `RocksStore`."""

    rotten: set[tuple[Family, bytes]]
    on_damage: Callable[[], object]

    def get(self, family: Family, key: bytes) -> bytes | None:
        if (family, key) in self.rotten:
            raise self._damaged()
        return super().get(family, key)

    def scan(self, family: Family, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        for key, value in super().scan(family, start, end):
            if (family, key) in self.rotten:
                raise self._damaged()
            yield key, value

    def apply(self, batch: list[Write]) -> None:
        super().apply(batch)
        self.rotten.difference_update([(family, key) for family, key, _ in batch])  # written anew, elsewhere

    def snapshot(self) -> MemoryStore:
        return _rotten(super().snapshot(), set(self.rotten))

    def _damaged(self) -> StateDamaged:
        self.on_damage()
        return StateDamaged("rows of the state are damaged")


def is_rotten(store: MemoryStore) -> bool:
    return isinstance(store, RottenStore) and bool(store.rotten)


def rot(store: MemoryStore, chance: Random) -> bool:
    """Damage a few adjacent rows. This changes the class of the store object, so that all its readers keep the same
    object, and undamaged stores need no check."""
    family = chance.choice(list(Family))
    keys = [key for key, _ in MemoryStore.scan(store, family, b"", None)]
    if not keys:
        return False
    at = chance.randrange(len(keys))
    rows = {(family, key) for key in keys[at : at + 1 + chance.randrange(4)]}
    if isinstance(store, RottenStore):
        store.rotten |= rows
    else:
        _rotten(store, rows)
    return True


def _rotten(store: MemoryStore, rows: set[tuple[Family, bytes]]) -> RottenStore:
    store.__class__ = RottenStore
    assert isinstance(store, RottenStore)
    store.rotten, store.on_damage = rows, _ignore
    return store


def _ignore() -> None:
    """Does nothing: this copy is not served."""
