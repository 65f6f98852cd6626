"""A lease that is held by one process at a time, whatever cell it is in: who is the primary.

    primary = them.lease("primary", ttl=10.0)
    async with await primary.acquire("eu") as lease:    # waits until it is free, then renews it in the background
        while lease.valid:
            await write(…, fence=lease.fence)

The rules are in `cells.lease_rules`. Clocks are not synchronised: the holder counts from before its request, everybody
else from after they have seen what came of it.

`valid` says what the holder knew when it was asked. Between that and what it does next it may be suspended, so what
must not be touched by two has to compare the fence, and refuse one that is lower than it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

from holdfast.cells import clock
from holdfast.cells import lease_rules as rules
from holdfast.cells.errors import LeaseLost
from holdfast.cells.learner import Learner
from holdfast.cells.lease_rules import LeaseRecord, Tenure, Watched
from holdfast.cells.links import Links
from holdfast.cells.register import Register
from holdfast.client.errors import ClientError, OutcomeUnknown
from holdfast.client.keepalive import now
from holdfast.client.values import to_bytes
from holdfast.tasks import Tasks

LEAST_TTL, LONGEST_TTL = 1.0, 24 * 3600.0  # seconds
MAX_HOLDER_BYTES = 1024
RENEWALS = 3  # in each ttl
RETRY_SHARE = 1 / 10  # of the ttl, until a renewal that failed is tried again
PAUSE_SECONDS = 0.1  # before it is asked again what became of an attempt


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has taken a lease and not released it. It may be gone."""

    value: bytes
    fence: int


class LeaseRegister:
    """What processes take a lease from. Records that were seen are remembered, so `try_acquire`, called again and again
    on one object, takes over from a holder that is gone."""

    def __init__(self, links: Links, name: str, ttl: float, timeout: float) -> None:
        if not name or "/" in name:
            raise ValueError(f"{name!r} is no name of a lease: give one without a slash")
        if not LEAST_TTL <= ttl <= LONGEST_TTL:
            raise ValueError(f"the ttl of a lease is from {LEAST_TTL:g} s to {LONGEST_TTL:g} s, not {ttl:g} s")
        self.name = name
        self._links = links
        self._ttl_ms = round(ttl * 1000)
        self._timeout = timeout
        self._register = self._opened(timeout)
        self._watched = Watched(None, now())

    def _opened(self, timeout: float) -> Register:
        return Register(self._links, f"lease.{self.name}", timeout)

    async def read(self) -> Holder | None:
        """Who has it; None if it is free. Raises CellsUnavailable."""
        record = self._saw(LeaseRecord.unpacked(await self._register.read()))
        return None if record is None or record.released else Holder(record.holder, record.fence)

    async def acquire(self, holder: str | bytes) -> Lease:
        """Wait until it is free, and take it. `holder`: what `read` tells of it.

        Raises CellsUnavailable if too few cells answer: call it again. Raises OutcomeUnknown if it cannot be said
        whether it was taken; then, and if this is cancelled, it may be free again only after the ttl."""
        value = _checked(holder)
        async with Learner(self._links, f"lease.{self.name}", self._timeout) as learner:
            lease = await self.try_acquire(value)
            while lease is None:
                await self._wait(learner)
                lease = await self._take(value)
            return lease

    async def try_acquire(self, holder: str | bytes) -> Lease | None:
        """None if another one has it. Raises as `acquire` does."""
        value = _checked(holder)
        self._saw(LeaseRecord.unpacked(await self._register.read()))
        return await self._take(value)

    async def _wait(self, learner: Learner) -> None:
        """Until there is another record, or this one has been watched for long enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._watched.free_at() - now())):
                self._saw(LeaseRecord.unpacked(await learner.next()))

    async def _take(self, holder: bytes) -> Lease | None:
        watched = self._watched
        if now() < watched.free_at():
            return None
        tenure = Tenure(secrets.token_bytes(16), now(), self._ttl_ms)
        change = _changing(partial(rules.take, watched=watched.record, tenure=tenure, holder=holder))
        record = self._saw(LeaseRecord.unpacked(await self._changed(change)))
        if record is None or not rules.holds(record, tenure):
            return None
        register = self._opened(min(self._timeout, self._ttl_ms / 1000))
        try:
            while now() >= tenure.valid_until():  # the answer came late
                tenure = await _renewed(register, tenure)
        except LeaseLost:
            return None
        return Lease(register, tenure, record.fence)

    async def _changed(self, change: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """The value after the change. If it cannot be said whether that took effect, the value shows it. Raises
        OutcomeUnknown if it cannot be read either."""
        try:
            return await self._register.change(change)
        except OutcomeUnknown:
            end = clock.now() + self._timeout
            while clock.now() < end:
                with contextlib.suppress(ClientError):
                    return await self._register.read()
                await asyncio.sleep(PAUSE_SECONDS)
            raise

    def _saw(self, record: LeaseRecord | None) -> LeaseRecord | None:
        self._watched = rules.watch(self._watched, record, now())
        return record


class Lease:
    """A lease that was taken. It is renewed while it is entered by `async with`, or by `renew`.

    `fence` grows with each holder. `lost` is set once it is not valid any more without having been released; after a
    time in which the machine was suspended it may be set late, while `valid` is never late."""

    def __init__(self, register: Register, tenure: Tenure, fence: int) -> None:
        self.fence = fence
        self.lost = asyncio.Event()
        self._register = register
        self._tenure = tenure
        self._over = False  # it has ended, and whatever is answered later changes nothing
        self._ending: asyncio.TimerHandle | None = None
        self._tasks = Tasks()
        self._notice_end()

    @property
    def _ttl(self) -> float:
        return self._tenure.ttl_ms / 1000

    @property
    def valid(self) -> bool:
        """Whether nobody else can have it, by the clock of this machine. Once it is false it stays so."""
        return not self._over and now() < self._tenure.valid_until()

    async def renew(self) -> None:
        """Raises LeaseLost if it has ended. After CellsUnavailable and OutcomeUnknown it is valid for as long as it was
        before."""
        self._check()
        try:
            tenure = await _renewed(self._register, self._tenure)
        except LeaseLost:
            self._lose()
            raise
        self._check()
        self._tenure = tenure

    async def release(self) -> None:
        """Let the next one have it at once. From this call on it is not valid, also if it raises CellsUnavailable or
        OutcomeUnknown; then the next one may have to wait for the ttl."""
        self._end()
        await self._register.change(_changing(partial(rules.release, tenure=self._tenure)))

    def _check(self) -> None:
        if not self.valid:
            if not self._over:
                self._lose()
            raise LeaseLost(f"{self._register.name} is not held any more: acquire it again")

    def _lose(self) -> None:
        self._end()
        self.lost.set()

    def _end(self) -> None:
        self._over = True
        self._tasks.cancel()
        if self._ending is not None:
            self._ending.cancel()

    def _notice_end(self) -> None:
        left = self._tenure.valid_until() - now()
        if left <= 0:
            self._lose()
        else:
            self._ending = asyncio.get_running_loop().call_later(left, self._notice_end)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._tenure.since + self._ttl / RENEWALS - now())
            try:
                await self.renew()
            except LeaseLost:
                return
            except ClientError:  # too few cells answer, for now
                await asyncio.sleep(self._ttl * RETRY_SHARE)

    async def __aenter__(self) -> Lease:
        self._tasks.spawn(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ClientError):  # it ends by itself, too
            await self.release()


def _checked(holder: str | bytes) -> bytes:
    value = to_bytes(holder)
    if len(value) > MAX_HOLDER_BYTES:
        raise ValueError(f"what a holder says of itself has at most {MAX_HOLDER_BYTES} bytes, not {len(value)}")
    return value


def _changing(rule: Callable[[LeaseRecord | None], LeaseRecord | None]) -> Callable[[bytes | None], bytes | None]:
    """The change of the register that a rule makes."""

    def change(value: bytes | None) -> bytes | None:
        after = rule(LeaseRecord.unpacked(value))
        return None if after is None else after.packed()

    return change


async def _renewed(register: Register, tenure: Tenure) -> Tenure:
    """Raises LeaseLost if another one holds it, CellsUnavailable or OutcomeUnknown."""
    asked = now()
    record = LeaseRecord.unpacked(await register.change(_changing(partial(rules.renew, tenure=tenure))))
    if not rules.holds(record, tenure):
        raise LeaseLost(f"{register.name} is held by another one, or was released: acquire it again")
    return replace(tenure, since=asked)
