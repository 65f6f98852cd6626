"""How fresh an answer is, as the server says it in the answer's headers. Servers other than holdfast say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.client.position import Position
from holdfast.status import BOUND_METADATA, POSITION_METADATA, READ_METADATA


@dataclass(frozen=True, slots=True)
class Freshness:
    """`read`: how it was read: linearizable, bounded, at-least or local. `position`: what the data has all up to.
    `bound`: how many seconds old the data can be; None: not known, as after a start without a network."""

    read: str
    position: Position
    bound: float | None

    @classmethod
    def of(cls, headers: Iterable[tuple[str, str | bytes]]) -> Freshness | None:
        """None if they do not say it."""
        said = {name: value for name, value in headers if isinstance(value, str)}
        try:
            bound = said[BOUND_METADATA]
            seconds = None if bound == "unknown" else float(bound.removesuffix("s"))
            return cls(said[READ_METADATA], Position.parse(said[POSITION_METADATA]), seconds)
        except (KeyError, ValueError):
            return None
