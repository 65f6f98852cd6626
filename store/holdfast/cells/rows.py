"""Reads all keys with a prefix from a cell, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from holdfast.keyrange import prefix_end

PAGE = 500  # keys that are read at once


class _KeyValue(Protocol):
    @property
    def key(self) -> bytes: ...

    @property
    def value(self) -> bytes: ...


class _Page(Protocol):
    @property
    def kvs(self) -> Sequence[_KeyValue]: ...

    @property
    def more(self) -> bool: ...


_Read = Callable[[bytes, bytes, int], Awaitable[_Page]]


async def rows(read: _Read, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
    """The keys and their values: each that stays is there once. `read` is told where to begin, where to end, and how
    many keys to read at most."""
    start, end = prefix, prefix_end(prefix)
    while start:
        page = await read(start, end, PAGE)
        for kv in page.kvs:
            yield kv.key, kv.value
        start = page.kvs[-1].key + b"\0" if page.more else b""
