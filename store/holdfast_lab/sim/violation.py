"""The exception by which the simulator reports a failure."""

from __future__ import annotations


class Violation(Exception):
    """An invariant does not hold. `name` is its id (I1 to I17, L1: docs/consensus.md). The seed reproduces it."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


def check(condition: bool, name: str, what: str) -> None:
    """Raise a Violation of `name` unless `condition` holds. Format `what` lazily where this is called often."""
    if not condition:
        raise Violation(name, what)
