"""What a mutant is, and how its broken rule is put in the place of the right one for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Patch = Callable[[Any, str, Any], None]  # of a class or a module


@dataclass(frozen=True, slots=True)
class Mutant:
    """`rule`: what is broken. `events` and `shape`: what the seeds have instead of their own choice, where few of them
    would meet the rule. `seed`: the first that found it; it is tried before all others."""

    name: str
    rule: str
    apply: Callable[[Patch], None]
    events: tuple[str, ...] | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


MUTANTS: dict[str, Mutant] = {}


def mutant(
    rule: str, *, events: str | None = None, seed: int = 0, **shape: Any
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutant under the name of the function. `events`: separated by blanks."""

    def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
        name = apply.__name__.strip("_").replace("_", "-")
        chosen = None if events is None else tuple(events.split())
        MUTANTS[name] = Mutant(name, rule, apply, chosen, shape, seed)
        return apply

    return register


@contextmanager
def broken(name: str) -> Iterator[Mutant]:
    """The operator with this rule broken, until the block is left."""
    found = MUTANTS[name]
    before: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, value: Any) -> None:
        before.append((owner, attribute, owner.__dict__[attribute]))
        setattr(owner, attribute, value)

    try:
        found.apply(patch)
        yield found
    finally:
        for owner, attribute, value in reversed(before):
            setattr(owner, attribute, value)
