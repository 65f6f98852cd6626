"""Leases with one rule broken. The exploration has to find each."""

from __future__ import annotations

from dataclasses import replace

from holdfast.cells.lease_rules import LeaseRecord, Tenure, Watched

from holdfast_lab.cells.leases import NOW, TTLS_MS, Asked, Kind, Leases, Process


class AnswerCounts(Leases):
    """a holder counts from before its request"""

    def extended_from(self, asked: float) -> float:
        return NOW


class ReadingCounts(Leases):
    """who watches a record counts from after it was received"""

    def seen_at(self, asked: float) -> float:
        return asked


class OwnTtlCounts(Leases):
    """who watches a record waits for the ttl of its holder"""

    def free_at(self, by: int, watched: Watched) -> float:
        if watched.record is None or watched.record.released:
            return super().free_at(by, watched)
        return super().free_at(by, replace(watched, record=replace(watched.record, ttl_ms=TTLS_MS[by])))


class NobodyWaits(Leases):
    """a lease that is held is not taken at once"""

    def free_at(self, by: int, watched: Watched) -> float:
        return watched.since


class FastClocksAreTrusted(Leases):
    """who watches a record waits longer than the ttl, because its clock may be fast"""

    def free_at(self, by: int, watched: Watched) -> float:
        return watched.free_at(rho=0.0)


class SlowClocksAreTrusted(Leases):
    """a holder counts on less than the ttl, because its clock may be slow"""

    def valid_until(self, tenure: Tenure) -> float:
        return tenure.valid_until(rho=0.0)


class WatchedIsNotCompared(Leases):
    """a lease is taken if its record is the one that was watched"""

    @staticmethod
    def take(
        record: LeaseRecord | None, watched: LeaseRecord | None, tenure: Tenure, holder: bytes
    ) -> LeaseRecord | None:
        return Leases.take(record, record, tenure, holder)


class RenewalsAreNotCompared(Leases):
    """a lease that was renewed is another record"""

    @staticmethod
    def take(
        record: LeaseRecord | None, watched: LeaseRecord | None, tenure: Tenure, holder: bytes
    ) -> LeaseRecord | None:
        if record is not None and watched is not None:
            watched = replace(watched, renewals=record.renewals)
        return Leases.take(record, watched, tenure, holder)


class FenceStays(Leases):
    """each tenure has a higher fence"""

    @staticmethod
    def take(
        record: LeaseRecord | None, watched: LeaseRecord | None, tenure: Tenure, holder: bytes
    ) -> LeaseRecord | None:
        after = Leases.take(record, watched, tenure, holder)
        return after if after is None or record is None else replace(after, fence=record.fence)


class RenewalDoesNotCompare(Leases):
    """a renewal compares whose tenure it is"""

    @staticmethod
    def renew(record: LeaseRecord | None, tenure: Tenure) -> LeaseRecord | None:
        return record and replace(record, tenure=tenure.id, renewals=record.renewals + 1)


class AnyHolderIsOneself(Leases):
    """a holder that finds another tenure has lost the lease"""

    @staticmethod
    def holds(record: LeaseRecord | None, tenure: Tenure) -> bool:
        return record is not None and not record.released


class UnansweredExtends(Leases):
    """a renewal that was not answered extends nothing"""

    def unanswered(self, process: Process, asked: Asked) -> Process:
        if asked.kind is not Kind.RENEW or process.tenure is None:
            return process
        return replace(process, tenure=replace(process.tenure, since=asked.since))


class ReleasedInTheEnd(Leases):
    """a lease is not valid any more once its release is sent"""

    def releasing(self, process: Process) -> Process:
        return process


class TenuresAreShared(Leases):
    """each attempt has a tenure of its own"""

    def tenure_id(self, by: int, takes: int) -> bytes:
        return bytes([by])


LEASES: tuple[type[Leases], ...] = (
    AnswerCounts,
    ReadingCounts,
    OwnTtlCounts,
    NobodyWaits,
    FastClocksAreTrusted,
    SlowClocksAreTrusted,
    WatchedIsNotCompared,
    RenewalsAreNotCompared,
    FenceStays,
    RenewalDoesNotCompare,
    AnyHolderIsOneself,
    UnansweredExtends,
    ReleasedInTheEnd,
    TenuresAreShared,
)
