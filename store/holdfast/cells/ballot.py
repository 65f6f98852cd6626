"""Ballots: the numbers by which rounds of a register are ordered.

Two proposers never use the same one, because it ends with the proposer's own random number.
"""

from __future__ import annotations

from typing import NamedTuple

PACKED_BYTES = 16


class Ballot(NamedTuple):
    number: int
    proposer: int

    def packed(self) -> bytes:
        """In the order of ballots, so that a transaction of a cell can compare them as values."""
        return self.number.to_bytes(8, "big") + self.proposer.to_bytes(8, "big")

    @staticmethod
    def unpacked(data: bytes) -> Ballot:
        """Raises ValueError."""
        if len(data) != PACKED_BYTES:
            raise ValueError(f"a ballot has {PACKED_BYTES} bytes, not {len(data)}")
        return Ballot(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))

    def after(self, proposer: int) -> Ballot:
        """The lowest ballot of `proposer` that is higher than this one."""
        return Ballot(self.number + 1, proposer)


NONE = Ballot(0, 0)  # lower than any that is used
