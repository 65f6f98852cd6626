"""What a replica serves while it is cut off, by prefix. Some keys are right for as long as nobody says otherwise;
others, such as a price or a limit, are worse than none once they are old.

    serve                 always; the default
    serve-until=24h       until the data may be so old
    require-online        only while the replica reaches the cluster

The age of the data is its staleness bound. After a start the bound is not known, so the age counts from the time at
which the data was last known to be fresh, on the wall clock. If that clock is behind the stored time, the data counts
as old.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from holdfast.durations import seconds
from holdfast.keyrange import Range, prefix_end
from holdfast.status import NOT_SERVED_OFFLINE, Refusal, RequestError

SKEW_SECONDS = 5.0


class Kind(Enum):
    SERVE = "serve"
    SERVE_UNTIL = "serve-until"
    REQUIRE_ONLINE = "require-online"


class Policy(NamedTuple):
    """`most_seconds`: of SERVE_UNTIL."""

    prefix: str
    kind: Kind
    most_seconds: float = 0.0


def parse_policy(text: str) -> Policy:
    """Parse PREFIX=POLICY. The prefix may contain `=`. Raises ValueError with a one-line message."""
    for kind in (Kind.SERVE, Kind.REQUIRE_ONLINE):
        prefix, found, rest = text.rpartition(f"={kind.value}")
        if found and not rest and prefix:
            return Policy(prefix, kind)
    prefix, found, age = text.rpartition(f"={Kind.SERVE_UNTIL.value}=")
    if not found or not prefix:
        raise ValueError(
            f"{text!r} is no offline policy: write PREFIX=serve, PREFIX=require-online or PREFIX=serve-until=24h"
        )
    most = seconds(age)
    if not most:
        raise ValueError(f"{text!r}: data of no age is never served; write {prefix}=require-online, or a longer time")
    return Policy(prefix, Kind.SERVE_UNTIL, most)


class OfflinePolicies:
    """The longest prefix of a key decides. A range is served if all of its keys may be."""

    def __init__(
        self,
        policies: Sequence[Policy],
        *,
        name: str,
        online: Callable[[], bool],
        age_seconds: Callable[[], float | None],
    ) -> None:
        """`online`: whether the replica reaches the cluster. `age_seconds`: how old the data can be; None: unknown."""
        self._policies = sorted(policies, key=lambda policy: len(policy.prefix), reverse=True)
        self._bounds = [_bounds(policy.prefix) for policy in self._policies]
        self._name = name
        self._online = online
        self._age_seconds = age_seconds

    def state(self) -> tuple[bool, ...]:
        """Which policies let their keys be served now. Watches have to be checked again when it changes."""
        return tuple(self._served(policy) for policy in self._policies)

    def check(self, range: Range) -> None:
        """Raise RequestError unless the keys of this range may be served now."""
        for policy, bounds in zip(self._policies, self._bounds, strict=True):
            if _overlap(range, bounds):
                if not self._served(policy):
                    raise RequestError(self._refusal(policy))
                if _covers(bounds, range):
                    return  # shorter prefixes do not decide of these keys

    def _served(self, policy: Policy) -> bool:
        if policy.kind is Kind.SERVE:
            return True
        if policy.kind is Kind.REQUIRE_ONLINE:
            return self._online()
        age = self._age_seconds()
        return age is not None and age <= policy.most_seconds

    def _refusal(self, policy: Policy) -> Refusal:
        if policy.kind is Kind.REQUIRE_ONLINE:
            why = "does not reach the cluster"
        else:
            why = f"has data that may be older than {policy.most_seconds:g}s"
        return NOT_SERVED_OFFLINE.fill(name=self._name, why=why, prefix=policy.prefix)


class KnownFresh:
    """When the data was last known to be fresh, across restarts."""

    def __init__(self, stored: bytes, wall: Callable[[], float]) -> None:
        """`wall`: seconds since the epoch."""
        self._wall = wall
        self._stored = int(stored) / 1000 if stored else None

    def age(self, staleness_ms: int | None) -> float | None:
        """How old the data can be, in seconds; None: not known. `staleness_ms`: the bound of this process."""
        if staleness_ms is not None:
            return staleness_ms / 1000
        if self._stored is None or self._wall() < self._stored - SKEW_SECONDS:
            return None
        return max(0.0, self._wall() - self._stored)

    def store(self, staleness_ms: int | None) -> bytes | None:
        """What to keep for the next process; None: nothing new."""
        if staleness_ms is None:
            return None
        self._stored = self._wall() - staleness_ms / 1000
        return b"%d" % int(self._stored * 1000)


def _bounds(prefix: str) -> Range:
    start = prefix.encode()
    end = prefix_end(start)
    return start, None if end == b"\x00" else end


def _overlap(one: Range, other: Range) -> bool:
    return (other[1] is None or one[0] < other[1]) and (one[1] is None or other[0] < one[1])


def _covers(outer: Range, inner: Range) -> bool:
    ends = outer[1] is None or (inner[1] is not None and inner[1] <= outer[1])
    return outer[0] <= inner[0] and ends
