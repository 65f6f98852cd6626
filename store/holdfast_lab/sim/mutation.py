"""Breaks one rule of the production code for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Patch = Callable[[Any, str, Any], None]  # of a class or a module


@dataclass(frozen=True, slots=True)
class Mutant:
    """`rule` says which rule is broken."""

    name: str
    rule: str
    apply: Callable[[Patch], None]


Mutants = dict[str, Mutant]


def registering(table: Mutants) -> Callable[[str], Callable[[Callable[[Patch], None]], Callable[[Patch], None]]]:
    """A decorator that enters a function that applies a mutant into `table`, by the function's name."""

    def mutant(rule: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
        def register(apply: Callable[[Patch], None]) -> Callable[[Patch], None]:
            name = apply.__name__.strip("_").replace("_", "-")
            table[name] = Mutant(name, rule, apply)
            return apply

        return register

    return mutant


@contextmanager
def broken(mutant: Mutant) -> Iterator[None]:
    """The production code with this rule broken, until the block is left."""
    before: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, value: Any) -> None:
        before.append((owner, attribute, owner.__dict__[attribute]))
        setattr(owner, attribute, value)

    try:
        mutant.apply(patch)
        yield
    finally:
        for owner, attribute, value in reversed(before):
            setattr(owner, attribute, value)
