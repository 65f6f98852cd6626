"""Visits every state that a protocol can reach, breadth first, so the way to a violation is as short as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Found(Generic[State]):
    """`states`: how many were visited. `wrong`: what the first bad one violates; empty if none does. `way`: to it."""

    states: int
    wrong: str = ""
    way: tuple[State, ...] = ()


class TooManyStates(Exception):
    """There are more states than were allowed: nothing is known."""


def explore(
    first: State, nexts: Callable[[State], Iterable[State]], wrong: Callable[[State], str], limit: int = 5_000_000
) -> Found[State]:
    """`wrong` says what a state violates, or nothing. Raises TooManyStates."""
    came_from: dict[State, State | None] = {first: None}
    waiting = deque([first])
    while waiting:
        state = waiting.popleft()
        complaint = wrong(state)
        if complaint:
            return Found(len(came_from), complaint, _way(came_from, state))
        for after in nexts(state):
            if after not in came_from:
                if len(came_from) >= limit:
                    raise TooManyStates(f"more than {limit:,} states")
                came_from[after] = state
                waiting.append(after)
    return Found(len(came_from))


def _way(came_from: dict[State, State | None], state: State) -> tuple[State, ...]:
    way, at = [state], came_from[state]
    while at is not None:
        way.append(at)
        at = came_from[at]
    return tuple(reversed(way))
