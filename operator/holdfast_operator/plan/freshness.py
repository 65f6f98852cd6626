"""Whether the data of a pool's replicas is as fresh as wanted, from what the members report about them.

A report bounds the age of a replica's data in coarse steps. A bound may go to and fro between two of them, and each
write of a status leads to another pass. So a bound that was reported holds for a while, unless a higher one comes. What
a replica reports first after it was offline is as old as that, and does not hold: it catches up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

HOLD_SECONDS = 120.0  # longer than the pause between two passes
SHOWN = 3  # replicas that a message names


@dataclass(frozen=True, slots=True)
class Report:
    """What the members know of one replica."""

    whole: bool  # it has everything of its prefixes, up to some revision
    bound: int  # seconds that its data is old at most; 0: not known
    offline_since: float = 0.0  # Unix seconds; 0: it follows

    @property
    def online(self) -> bool:
        return not self.offline_since


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest bound of late, and when it was last reported (Unix seconds; 0: it does not hold)."""

    bound: int
    at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """`fresh` None: not known."""

    fresh: bool | None
    reason: str
    message: str


def peaks(before: Mapping[str, Peak], reports: Mapping[str, Report], now: float) -> dict[str, Peak]:
    """The peak of each replica that follows and knows its bound."""
    found: dict[str, Peak] = {}
    for name, report in reports.items():
        if not report.online or not report.bound:
            continue
        known = before.get(name)
        if known is None:
            known = Peak(report.bound, at=0.0)
        elif report.bound >= known.bound or now > known.at + HOLD_SECONDS:
            known = Peak(report.bound, now)
        found[name] = known
    return found


def last_seen(
    before: Mapping[str, float], wanted: Sequence[str], reports: Mapping[str, Report], now: float
) -> dict[str, float]:
    """When each of the wanted replicas was last reported as following (Unix seconds)."""
    known = {name: before[name] for name in wanted if name in before}
    return known | {name: now for name, report in reports.items() if report.online}


def corrected(reports: Mapping[str, Report], seen: Mapping[str, float]) -> dict[str, Report]:
    """The reports, of which none says that a replica is offline since a time before it was last seen. A member that the
    replica left long ago says so while the one that it follows is restarted."""
    return {
        name: report if report.online else replace(report, offline_since=max(report.offline_since, seen.get(name, 0.0)))
        for name, report in reports.items()
    }


def judged(
    wanted: Sequence[str], reports: Mapping[str, Report], known: Mapping[str, Peak], target: int, now: float
) -> Verdict:
    """Whether no replica's data is older than `target` seconds. `known`: the peaks."""
    old: list[str] = []
    unknown: list[str] = []
    for name in wanted:
        report = reports.get(name)
        if name in known and known[name].bound > target:
            old.append(f"{name} (up to {known[name].bound} s)")
        elif report is not None and not report.online and now - report.offline_since > target:
            since = datetime.fromtimestamp(report.offline_since, UTC)
            old.append(f"{name} (offline since {since:%Y-%m-%d %H:%M:%S} UTC)")
        elif name not in known:
            unknown.append(name)
    if old:
        message = f"the data of {len(old)} of {len(wanted)} replicas may be older than {target} s: {_few(old)}"
        return Verdict(False, "TooOld", message)
    if unknown:
        message = f"the age of the data of {len(unknown)} of {len(wanted)} replicas is not known: {_few(unknown)}"
        return Verdict(None, "NotReported", message)
    return Verdict(True, "AllFresh", f"the data of each of the {len(wanted)} replicas is at most {target} s old")


def _few(names: Sequence[str]) -> str:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])
