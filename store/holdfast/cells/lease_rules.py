"""Who holds a lease that cells keep together: the rules, as functions that are told the time.

The lease is a register with one record. Clocks of different processes are never compared: each counts from what it did
or saw itself.

States of the record:

    absent                                  nobody has ever held it
    held (tenure, fence, renewals, ttl)     its holder may be gone
    released (tenure, fence)                free

States of a process:

    watching (record, since)    it has seen this record, first at `since`
    holding (tenure, since)     the newest change of its own that is known to have taken effect was sent after `since`
    neither

Changes of the record, each compared and made in one step by the register:

    take       if it is absent, released, or still the one that was watched for ttl * (1 + RHO); fence + 1, a new tenure
    renew      if it is held by the own tenure; renewals + 1
    release    if it is held by the own tenure

What must hold, as long as the rate of each clock differs from that of real time by less than RHO:

    1. At no time are two processes holding validly, which is for ttl * (1 - RHO) after `since`.
    2. Each tenure has a higher fence than all before it.

Why: a record is seen only after it was sent, so who watches it counts from a later time than its holder. The watching
process waits for more than ttl of real time, and the holder's validity ends within less. If the holder renews
meanwhile, the record is not the one that was watched. A renewal that arrives later finds another tenure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from holdfast.proto import cells_pb2

RHO = 0.01  # by which the rates of clocks may differ from that of real time


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The value of the register. `tenure` is random, and of one attempt to take the lease."""

    holder: bytes
    tenure: bytes
    fence: int
    ttl_ms: int
    renewals: int = 0
    released: bool = False

    def packed(self) -> bytes:
        return cells_pb2.LeaseRecord(
            holder=self.holder,
            tenure=self.tenure,
            fence=self.fence,
            renewals=self.renewals,
            ttl_ms=self.ttl_ms,
            released=self.released,
        ).SerializeToString()

    @staticmethod
    def unpacked(data: bytes | None) -> LeaseRecord | None:
        """None: nobody has ever held the lease. Raises ValueError."""
        if data is None:
            return None
        try:
            found = cells_pb2.LeaseRecord.FromString(data)
        except DecodeError as error:
            raise ValueError(f"this is no record of a lease: {error}") from error
        return LeaseRecord(found.holder, found.tenure, found.fence, found.ttl_ms, found.renewals, found.released)


@dataclass(frozen=True, slots=True)
class Watched:
    """A record, and when it was there for certain: by the clock of the process that watches it."""

    record: LeaseRecord | None
    since: float

    def free_at(self, rho: float = RHO) -> float:
        """From when on the lease may be taken, if the record is still this one."""
        if self.record is None or self.record.released:
            return -math.inf
        return self.since + self.record.ttl_ms / 1000 * (1 + rho)


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a holder knows: `since` is a time before it sent the newest change that has taken effect."""

    id: bytes
    since: float
    ttl_ms: int

    def valid_until(self, rho: float = RHO) -> float:
        return self.since + self.ttl_ms / 1000 * (1 - rho)


def watch(watched: Watched | None, record: LeaseRecord | None, now: float) -> Watched:
    """`now`: after the record was received."""
    return watched if watched is not None and watched.record == record else Watched(record, now)


def holds(record: LeaseRecord | None, tenure: Tenure) -> bool:
    return record is not None and record.tenure == tenure.id and not record.released


# ---- changes: the next record; None: this change is not to be made -----------------------------------------------


def take(record: LeaseRecord | None, watched: LeaseRecord | None, tenure: Tenure, holder: bytes) -> LeaseRecord | None:
    """`watched`: what was watched for as long as it has to be."""
    if record is None:
        return LeaseRecord(holder, tenure.id, 1, tenure.ttl_ms)
    if record.released or record == watched:
        return LeaseRecord(holder, tenure.id, record.fence + 1, tenure.ttl_ms)
    return None


def renew(record: LeaseRecord | None, tenure: Tenure) -> LeaseRecord | None:
    return replace(record, renewals=record.renewals + 1) if record is not None and holds(record, tenure) else None


def release(record: LeaseRecord | None, tenure: Tenure) -> LeaseRecord | None:
    return replace(record, released=True) if record is not None and holds(record, tenure) else None
