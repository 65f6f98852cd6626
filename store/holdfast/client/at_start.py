"""Reads the keys of a prefix once, for settings that a program reads when it starts; with a cache's last good file.

No connection stays open, so the program may fork afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.client.blocking import connect_blocking
from holdfast.client.cache import FIRST_SECONDS
from holdfast.client.errors import Unavailable
from holdfast.client.values import to_bytes

log = logging.getLogger("holdfast.client")


class NotSettings(ValueError):
    """Some keys cannot be settings. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class State:
    """All keys of the prefix at `revision`. `age`: seconds; what was acknowledged longer before the read is there.
    `from_file`: no server answered, this is what the last good file has."""

    values: Mapping[bytes, bytes]
    revision: int
    age: float
    from_file: bool


def read(
    endpoints: str | list[str],
    prefix: str | bytes,
    *,
    file: str | Path | None = None,
    max_age: float = 0.0,
    first_seconds: float = FIRST_SECONDS,
    **options: Any,
) -> State:
    """All keys that begin with `prefix`. Raises a ClientError if no server answers and the file does not help: there is
    none, or its state is older than `max_age` seconds (0: any age). `options`: those of `connect_blocking`."""
    with (
        connect_blocking(endpoints, **{"session_ttl": 0, **options}) as hf,
        hf.cache(prefix, file=file, first_seconds=first_seconds) as cache,
    ):
        found = State({key: cache[key].value for key in cache}, cache.revision, cache.age, cache.from_file)
    if found.from_file:
        if max_age and found.age > max_age:
            raise Unavailable(
                f"no server answers, and what {file} holds may be {found.age:.0f} s old, over {max_age:g}"
            )
        log.warning("no server answers: %s is as of revision %d, up to %.0f s old", prefix, found.revision, found.age)
    return found


def texts(values: Mapping[bytes, bytes], prefix: str | bytes, *, fold: bool = False) -> dict[str, str]:
    """The keys without the prefix, and their values, as text. Raises NotSettings, with `fold` also if two keys differ
    only in upper and lower case."""
    start = len(to_bytes(prefix))
    found: dict[str, str] = {}
    for key, value in values.items():
        try:
            name = key[start:].removeprefix(b"/").decode()
            found[name] = value.decode()
        except UnicodeDecodeError as error:
            raise NotSettings(f"the key {key!r} cannot be a setting: {error}") from None
        if not all(name.split("/")):
            raise NotSettings(f"the key {key!r} cannot be a setting: a part of its name is empty")
    if fold:
        _once(found)
    return found


def _once(names: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.casefold(), name)
        if other != name:
            raise NotSettings(f"the keys {other!r} and {name!r} would be the same setting: remove one of them")


def tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries by the slashes of the names. Raises NotSettings if a name has a value and others below it."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split("/")
        at = found
        for depth, parent in enumerate(parents, 1):
            at = at.setdefault(parent, {})
            if not isinstance(at, dict) or "/".join(parents[:depth]) in values:
                above = "/".join(parents[:depth])
                raise NotSettings(f"{above!r} has a value, and {name!r} is below it: remove one of them")
        at[last] = value
    return found
