"""The value of a register, with what a proposer needs to know whether its change took effect.

A round that is lost may have left its value with a cell, and a later round may have had it accepted. So the value names
the newest changes that led to it, and a proposer looks there before it tries again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import DecodeError

from holdfast.proto import cells_pb2

RECENT = 32  # changes that are named


class Effect(Enum):
    """What became of a change."""

    TAKEN = 1
    NOT_TAKEN = 2
    UNKNOWN = 3  # there were too many others since


@dataclass(frozen=True, slots=True)
class Record:
    """`value`: None before the first change. `changes`: how many led to it."""

    value: bytes | None = None
    changes: int = 0
    recent: tuple[bytes, ...] = ()

    def changed(self, value: bytes, id: bytes) -> Record:
        return Record(value, self.changes + 1, (*self.recent, id)[-RECENT:])

    def effect(self, id: bytes, since: int) -> Effect:
        """Of the change `id`, which was tried when `since` changes had been made."""
        if id in self.recent:
            return Effect.TAKEN
        return Effect.NOT_TAKEN if self.changes - since < RECENT else Effect.UNKNOWN

    def packed(self) -> bytes:
        record = cells_pb2.RegisterRecord(value=self.value or b"", changes=self.changes, recent=self.recent)
        return record.SerializeToString()

    @staticmethod
    def unpacked(data: bytes | None) -> Record:
        """None: the register was never changed. Raises ValueError."""
        if data is None:
            return Record()
        try:
            found = cells_pb2.RegisterRecord.FromString(data)
        except DecodeError as error:
            raise ValueError(f"this is no value of a register: {error}") from error
        return Record(found.value if found.changes else None, found.changes, tuple(found.recent))
