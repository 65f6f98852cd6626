"""The operations of clients, their answers, and their effect on the keys: the model for checking the history."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

NEVER = 1 << 62

# key -> value, create revision, mod revision, version, lease
Version = tuple[bytes, int, int, int, int]
State = dict[bytes, Version]


class Kind(Enum):
    PUT = "put"
    SEQUENTIAL = "put sequential"
    DELETE = "delete"
    CAS = "cas"
    GET = "get"
    GRANT = "grant"
    REVOKE = "revoke"
    KEEP_ALIVE = "keep-alive"
    COMPACT = "compact"
    MEMBER = "member"
    EXPIRE = "expire"  # no client's: a lease may expire at any time after it was granted


class Outcome(Enum):
    OPEN = "open"
    DONE = "done"
    UNKNOWN = "unknown"
    REFUSED = "refused"  # nothing happened


@dataclass(slots=True)
class Operation:
    """`returned` is NEVER while the outcome is unknown: the operation may take effect at any later time."""

    id: int
    kind: Kind
    key: bytes = b""
    end: bytes | None = None  # of a range
    value: bytes = b""
    lease: int = 0
    expect: int = 0  # of a CAS: the mod revision the key must have
    invoked: int = 0
    returned: int = NEVER
    outcome: Outcome = Outcome.OPEN
    revision: int = 0
    result: Any = None
    request: Any = field(default=None, repr=False)

    def __repr__(self) -> str:
        until = "…" if self.returned == NEVER else f"{self.returned / 1e9:.3f}"
        what = b" ".join((self.key, self.value)).decode()
        return (
            f"#{self.id} {self.kind.value} {what} lease={self.lease:x} {self.outcome.value} [{self.invoked / 1e9:.3f}, "
            f"{until}] revision {self.revision}: {self.result}"
        )


def effect(operation: Operation, state: State, revision: int) -> tuple[State | None, Any]:
    """What `operation` does in `state` if it makes `revision` should it change anything: the new state (None: nothing
    changes) and what its client is told."""
    kind, key = operation.kind, operation.key
    if kind is Kind.PUT:
        before = state.get(key)
        return _put(state, key, operation, revision), before
    if kind is Kind.SEQUENTIAL:
        made = key + b"%020d" % revision
        return _put(state, made, operation, revision), made
    if kind is Kind.DELETE:
        gone = keys_in(state, key, operation.end)
        told = [(k, *state[k]) for k in gone]
        return (_without(state, gone) if gone else None), told
    if kind is Kind.CAS:
        before = state.get(key)
        if (before[2] if before else 0) != operation.expect:
            return None, (False, before)
        return _put(state, key, operation, revision), (True, None)
    if kind is Kind.GET:
        return None, [(k, *state[k]) for k in keys_in(state, key, operation.end)]
    if kind in (Kind.REVOKE, Kind.EXPIRE):
        gone = sorted(k for k, version in state.items() if version[4] == operation.lease)
        return (_without(state, gone) if gone else None), None
    raise AssertionError(f"{kind} has no effect on keys")


def keys_in(state: State, start: bytes, end: bytes | None) -> list[bytes]:
    return sorted(k for k in state if k >= start and (end is None or k < end))


def _put(state: State, key: bytes, operation: Operation, revision: int) -> State:
    before = state.get(key)
    create, version = (before[1], before[3] + 1) if before else (revision, 1)
    return {**state, key: (operation.value, create, revision, version, operation.lease)}


def _without(state: State, keys: list[bytes]) -> State:
    return {k: v for k, v in state.items() if k not in keys}
