"""Decides which address a call or a stream goes to. Pure: the caller tells the time, and what became of each attempt.

Addresses are compared by what they cost: their latency times the calls that they still owe an answer. The latency
follows a slow answer at once and forgets it within seconds (a peak-sensitive moving average), so an address that
becomes slow is left at once and tried again now and then. An address that fails three times in a row is ejected for
1, 2, 4, … up to 30 s, but never more than half of all: when everything fails, the fault is not theirs.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Policy = Literal["p2c", "rotate", "random", "nearest", "leader"]
POLICIES: tuple[Policy, ...] = ("p2c", "rotate", "random", "nearest", "leader")

FAILURES = 3  # in a row, before an address is ejected
EJECTED_SECONDS = 1.0
EJECTED_MOST_SECONDS = 30.0
MEMORY_SECONDS = 10.0  # after which a latency counts for 1/e
FAILED_SECONDS = 1.0  # the least latency of a failed attempt: a refused connection is quick
REMEMBERED = 256  # answers, of all addresses, for the percentiles
RECOUNTED = 32  # answers after which the percentiles are counted again
LEAST_ATTEMPT_SECONDS = 1.0


@dataclass(slots=True)
class Address:
    """What is known of one address. Times in seconds on the caller's clock."""

    zone: str = ""
    latency: float = 0.0
    latency_at: float = 0.0
    outstanding: int = 0
    streams: int = 0
    failures: int = 0  # in a row
    ejections: int = 0  # in a row
    ejected_until: float = -math.inf
    calls: int = 0
    failed: int = 0

    def latency_now(self, now: float) -> float:
        return self.latency * math.exp(-max(0.0, now - self.latency_at) / MEMORY_SECONDS)

    def cost(self, now: float) -> float:
        return self.latency_now(now) * (self.outstanding + 1)


@dataclass(slots=True)
class Percentiles:
    """Durations of the newest successful answers, in seconds."""

    p95: float = 0.0
    p99: float = 0.0
    _newest: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    _since: int = 0

    def add(self, seconds: float) -> None:
        self._newest.append(seconds)
        self._since += 1
        if self._since >= RECOUNTED:
            self._since = 0
            ordered = sorted(self._newest)
            self.p95, self.p99 = (ordered[len(ordered) * p // 100] for p in (95, 99))


class Picker:
    """`zone`: where the caller is, such as "eu-west/a": an address in the same zone is nearest, then one in the same
    region, which is the part before the slash. `zones`: those of the addresses."""

    def __init__(
        self,
        policy: Policy = "p2c",
        *,
        zone: str = "",
        zones: Mapping[str, str] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"pick={policy!r}: write one of {', '.join(POLICIES)}")
        self.policy = policy
        self._zone = zone
        self._zones = dict(zones or {})
        self._chance = chance or random.Random()
        self._turn = self._chance.randrange(1 << 16)
        self.addresses: dict[str, Address] = {}
        self.durations = Percentiles()
        self.leader = ""  # the leader's address, as far as is known

    def update(self, addresses: Mapping[str, str]) -> None:
        """The addresses that there are now, and the name that each was found by, whose zone it has."""
        known = self.addresses
        self.addresses = {
            address: known.get(address) or Address(self._zones.get(address) or self._zones.get(name, ""))
            for address, name in addresses.items()
        }

    # ---- picking -------------------------------------------------------------------------------------------

    def order(self, now: float, *, write: bool = False, stream: bool = False) -> list[str]:
        """All addresses, each once: the one to use first, then those to fall back to. Ejected ones come last."""
        fit = [a for a, known in self.addresses.items() if known.ejected_until <= now]
        out: list[str] = []
        if len(fit) < len(self.addresses):
            out = sorted(self.addresses.keys() - fit, key=lambda a: (self.addresses[a].ejected_until, a))
        if self.policy == "rotate":
            self._turn += 1
            at = self._turn % max(1, len(fit))
            return fit[at:] + fit[:at] + out
        self._chance.shuffle(fit)
        if self.policy != "random":
            fit.sort(key=lambda a: self._key(a, now, stream))
            if self.policy != "nearest" and not stream and len(fit) > 2:
                self._choose_of_two(fit)
        if write and self.policy in ("leader", "p2c") and self.leader in fit:
            fit.remove(self.leader)
            fit.insert(0, self.leader)
        return fit + out

    def _key(self, address: str, now: float, stream: bool) -> tuple[float, ...]:
        known = self.addresses[address]
        distance = self._distance(known)
        return (distance, known.streams, known.cost(now)) if stream else (distance, known.cost(now))

    def _choose_of_two(self, fit: list[str]) -> None:
        """Put the better of two random ones of the nearest zone first. If each client took the very best one, all
        clients would take the same."""
        distance = self._distance(self.addresses[fit[0]])
        nearest = sum(self._distance(self.addresses[a]) == distance for a in fit)
        if nearest > 2:
            one, other = self._chance.randrange(nearest), self._chance.randrange(nearest - 1)
            first = min(one, other + (other >= one))  # they are sorted by cost
            fit.insert(0, fit.pop(first))

    def _distance(self, known: Address) -> int:
        if not self._zone or not known.zone:
            return 2
        if known.zone == self._zone:
            return 0
        return 1 if known.zone.partition("/")[0] == self._zone.partition("/")[0] else 2

    @property
    def attempt_seconds(self) -> float:
        """After which an attempt without an answer is given company at another address."""
        return max(LEAST_ATTEMPT_SECONDS, 3 * self.durations.p99)

    def may_move(self, here: str, there: str) -> bool:
        """Whether `here` has failed three times in a row and `there` has not. If all are overloaded, moving calls would
        add load."""
        one, other = self.addresses.get(here), self.addresses.get(there)
        return one is not None and other is not None and one.failures >= FAILURES > other.failures

    # ---- what became of attempts ---------------------------------------------------------------------------

    def began(self, address: str) -> None:
        known = self.addresses.get(address)
        if known is not None:
            known.outstanding += 1
            known.calls += 1

    def ended(self, address: str, now: float, seconds: float, answered: bool | None) -> None:
        """An attempt has ended. `answered`: the server's answer came, an error of the request included; None: it was
        given up because another address answered first."""
        known = self.addresses.get(address)
        if known is None:
            return
        known.outstanding = max(0, known.outstanding - 1)
        if answered is None:
            self._learn(known, now, max(seconds, known.latency_now(now)))
        elif answered:
            known.failures = known.ejections = 0
            known.ejected_until = -math.inf
            self._learn(known, now, seconds)
            self.durations.add(seconds)
        else:
            self.failed(address, now, seconds)

    def failed(self, address: str, now: float, seconds: float = 0.0) -> None:
        """There was no answer in time, or no connection."""
        known = self.addresses.get(address)
        if known is None:
            return
        known.failed += 1
        known.failures += 1
        self._learn(known, now, max(seconds, FAILED_SECONDS))
        if known.failures >= FAILURES and known.ejected_until <= now:
            others = sum(a.ejected_until > now for a in self.addresses.values())
            if 2 * (others + 1) <= len(self.addresses):
                known.ejected_until = now + min(EJECTED_MOST_SECONDS, EJECTED_SECONDS * 2**known.ejections)
                known.ejections += 1

    def _learn(self, known: Address, now: float, seconds: float) -> None:
        before = known.latency_now(now)
        if seconds >= before:
            known.latency = seconds
        else:
            weight = math.exp(-max(0.0, now - known.latency_at) / MEMORY_SECONDS)
            known.latency = before + seconds * (1 - weight)
        known.latency_at = now

    def stream_began(self, address: str) -> None:
        if address in self.addresses:
            self.addresses[address].streams += 1

    def stream_ended(self, address: str) -> None:
        if address in self.addresses:
            self.addresses[address].streams = max(0, self.addresses[address].streams - 1)


class Budget:
    """Attempts beyond the first of each call: a share of the calls that were answered, so that servers in trouble get
    no storm."""

    def __init__(self, share: float, most: float) -> None:
        self._share = share
        self._most = most
        self._left = most

    def earn(self) -> None:
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        if self._left < 1:
            return False
        self._left -= 1
        return True
