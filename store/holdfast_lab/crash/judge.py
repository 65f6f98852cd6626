"""Verifies the answers of real servers: there is one order of all operations, every watch is complete, every stale read
returned the state at some revision, and all servers have the same content at the end."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast import client

from holdfast_lab.crash.clients import SPAN, LoadWatcher, Seen, StaleRead
from holdfast_lab.sim.linear import check_history
from holdfast_lab.sim.operations import Operation, State
from holdfast_lab.sim.violation import Violation, check


async def whole_history(endpoint: str, upto: int) -> list[Seen]:
    """Every change up to revision `upto` (which is one change), from the history of one server."""
    found: list[Seen] = []
    async with client.connect(endpoint, timeout=30.0) as hf:
        async for event in hf.watch("/", prefix=True, start_revision=1):
            deleted = event.type == "delete"
            found.append(Seen(event.kv.mod_revision, event.kv.key, None if deleted else event.kv.value))
            if event.kv.mod_revision == upto:
                break
    return found


def judge(
    operations: list[Operation], stale: Iterable[StaleRead], watchers: Iterable[LoadWatcher], history: list[Seen]
) -> int:
    """Raise a Violation if anything was wrong. Returns how often the order of operations had to be searched for."""
    _check_watches(watchers, history)
    _check_stale(stale, history)
    done: dict[int, dict[bytes, bytes | None]] = {}
    for seen in history:
        done.setdefault(seen.revision, {})[seen.key] = seen.value
    return check_history(operations, lambda revision: done.get(revision, {}))


def _check_watches(watchers: Iterable[LoadWatcher], history: list[Seen]) -> None:
    right = [seen for seen in history if SPAN[0] <= seen.key < SPAN[1]]
    for number, watcher in enumerate(watchers):
        for at, seen in enumerate(watcher.seen):
            expected = right[at] if at < len(right) else None
            check(seen == expected, "I11", f"watch {number} was told {seen} where {expected} belongs")
        check(len(watcher.seen) == len(right), "I11", f"watch {number} was told {len(watcher.seen)} of {len(right)}")


def _check_stale(stale: Iterable[StaleRead], history: list[Seen]) -> None:
    """Replay the history and compare each read with the state at its revision."""
    state: State = {}
    at = 0
    for read in sorted(stale, key=lambda r: r.revision):
        while at < len(history) and history[at].revision <= read.revision:
            _apply(state, history[at])
            at += 1
        right = [(key, *state[key]) for key in sorted(state) if SPAN[0] <= key < SPAN[1]]
        seen = [(key, value, create, mod, version, 0) for key, value, create, mod, version, _ in read.seen]
        if seen != right:
            raise Violation("I10", f"a serializable read at revision {read.revision} saw {seen}, not {right}")


def _apply(state: State, seen: Seen) -> None:
    if seen.value is None:
        state.pop(seen.key, None)
        return
    before = state.get(seen.key)
    create, version = (before[1], before[3] + 1) if before else (seen.revision, 1)
    state[seen.key] = (seen.value, create, seen.revision, version, 0)
