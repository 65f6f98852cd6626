"""The measurements, each of which gives rows: what was measured, of which client, and whether it is what is wanted."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast import client
from holdfast_lab.processes import LocalCluster, Process

from clients import servers
from clients.figures import deafness, imbalance, percentile, shares
from clients.programs import Failed, Program, Running
from clients.protocol import WATCHED, Options, Recorded

WATCHES = 12  # each at one of three addresses, which its client chooses
WRITE_EVERY_SECONDS = 0.05
FAR_MILLISECONDS = 50.0
BALANCED_CLIENTS = 30
STALL_MILLISECONDS, STALL_SHARE = 100.0, 0.02
LOOKUPS = 500_000


@dataclass
class Row:
    """`figures`: by name; `wanted`: of each figure that has a target, whether it is met; `reason`: why there are
    no figures."""

    what: str
    client: str
    figures: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, bool] = field(default_factory=dict)
    reason: str = ""
    raw: dict[str, Any] = field(default_factory=dict)  # for the file


@dataclass(frozen=True)
class Bench:
    local: LocalCluster
    rate: float
    seconds: float
    timeout: float = 10.0

    def options(self, endpoints: list[str] | None = None, **different: Any) -> Options:
        plain = {"clients": 1, "watches": 0, "serializable": False, "hedge": True}
        known = {"rate": self.rate, "seconds": self.seconds, "timeout": self.timeout, **plain, **different}
        return Options(endpoints=endpoints or self.local.endpoints, **known)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms" if seconds < 0.1 else f"{seconds * 1000:,.0f} ms"


def kind(serializable: bool) -> str:
    return "serializable" if serializable else "linearizable"


def latencies(found: Recorded, begin: float = 0.0, end: float = float("inf")) -> list[float]:
    return sorted(took for due, took in found.reads if begin <= due < end)


def of_program(found: Recorded) -> dict[str, str]:
    """What the program itself cost, watches included, and how far it was behind: under load these explain the rest."""
    made = len(found.reads) + len(found.failures)
    return {"CPU/read": f"{found.cpu / made * 1e6:,.0f} µs" if made else "-", "late": milliseconds(found.late)}


def failures(found: Recorded) -> dict[str, int]:
    """How many failed for each reason."""
    return dict(Counter(error[:120] for _, error in found.failures).most_common(5))


# ---- a frozen member -----------------------------------------------------------------------------------------


async def write(endpoints: list[str], end: float) -> dict[str, float]:
    """Write WATCHED at members that are not frozen until `end`. Returns when each value was acknowledged."""
    committed: dict[str, float] = {}
    number = 0
    async with client.connect(endpoints, timeout=10.0) as hf:
        while time.time() < end:
            number += 1
            try:
                await hf.put(WATCHED, str(number))
                committed[str(number)] = time.time()
            except client.ClientError:
                continue  # it is not known whether there will be an event
            await asyncio.sleep(WRITE_EVERY_SECONDS)
    return committed


async def frozen(bench: Bench, program: Program, *, leader: bool, serializable: bool) -> Row:
    """Freeze one member for the middle half of the load."""
    what = f"{'leader' if leader else 'follower'} frozen, {kind(serializable)}"
    process = await servers.victim(bench.local, leader=leader)
    options = bench.options(serializable=serializable, clients=program.clients, watches=WATCHES)
    running = await asyncio.to_thread(program.start, options)
    try:
        begin, end, committed, on_it, found = await _freeze(bench, process, running)
    finally:
        running.stop()
    during = latencies(found, begin, end)
    longest, missing = deafness(committed, found.watches)
    failed, p99 = len(found.failures), percentile(during, 0.99)
    figures = {
        "reads": f"{len(found.reads) + failed:,}",
        "failed": f"{failed:,}",
        "p50": milliseconds(percentile(during, 0.5)),
        "p99": milliseconds(p99),
        "max": milliseconds(during[-1]) if during else "-",
        "watch deaf": f"{max(longest):.1f} s" + (f", {missing} events missing" if missing else ""),
        "watches on it": f"{on_it} of {len(longest)}",
        **of_program(found),
    }
    wanted = {"failed": not failed, "p99": p99 < 1.0, "watch deaf": max(longest) < 5.0 and not missing}
    raw = {
        "p999": percentile(during, 0.999),
        "by_second": by_second(found, begin),
        "deaf": longest,
        "failures": failures(found),
        "failed_at": sorted(due - begin for due, _ in found.failures)[:100],
    }
    return Row(what, program.name, figures, wanted, raw=raw)


async def _freeze(
    bench: Bench, process: Process, running: Running
) -> tuple[float, float, dict[str, float], int, Recorded]:
    """Returns when it began and ended, the commits, the watches on the member, and what the program recorded."""
    others = [p.endpoint for p in bench.local.voters.values() if p is not process]
    begun = time.time()
    writing = asyncio.ensure_future(write(others, begun + bench.seconds))
    result = asyncio.ensure_future(asyncio.to_thread(running.result))
    try:
        await asyncio.sleep(bench.seconds / 4)
        on_it = await asyncio.to_thread(servers.watchers, process.endpoint)
        begin = time.time()
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(bench.seconds / 2)
        finally:
            end = time.time()
            process.send_signal(signal.SIGCONT)
        return begin, end, await writing, on_it, await result
    finally:
        writing.cancel()


def by_second(found: Recorded, begin: float) -> dict[int, float]:
    """The slowest read of those that were due in each second, counted from the freeze."""
    slowest: dict[int, float] = {}
    for due, took in found.reads:
        second = math.floor(due - begin)
        slowest[second] = max(slowest.get(second, 0.0), round(took, 4))
    return dict(sorted(slowest.items()))


# ---- a slow member, and balance ------------------------------------------------------------------------------


async def _counted(bench: Bench, program: Program, options: Options) -> tuple[dict[str, float], Recorded, list[int]]:
    """The reads that each member received during a load, and the watches that each had."""
    endpoints = bench.local.endpoints
    running = await asyncio.to_thread(program.start, options)
    try:
        before = servers.ranges(endpoints)
        found = asyncio.ensure_future(asyncio.to_thread(running.result))
        await asyncio.sleep(bench.seconds / 2)
        watched = [servers.watchers(endpoint) for endpoint in endpoints]
        recorded = await found
    finally:
        running.stop()
    return servers.difference(before, servers.ranges(endpoints)), recorded, watched


async def slow(bench: Bench, program: Program, *, serializable: bool) -> Row:
    process = await servers.victim(bench.local, leader=False)
    with servers.far(process, FAR_MILLISECONDS) as address:
        endpoints = [address if e == process.endpoint else e for e in bench.local.endpoints]
        options = bench.options(endpoints, serializable=serializable, clients=program.clients)
        counts, found, _ = await _counted(bench, program, options)
    share = shares(counts)[process.endpoint]
    took = latencies(found)
    figures = {
        "reads there": f"{share:.1%}",
        "p50": milliseconds(percentile(took, 0.5)),
        "p99": milliseconds(percentile(took, 0.99)),
        "failed": f"{len(found.failures)}",
        **of_program(found),
    }
    what = f"follower {FAR_MILLISECONDS:g} ms away each way, {kind(serializable)}"
    wanted = {"reads there": share < 0.05, "failed": not found.failures}
    return Row(what, program.name, figures, wanted, raw={"counts": counts, "failures": failures(found)})


async def balance(bench: Bench, program: Program, *, serializable: bool) -> Row:
    """Shares are of the reads that each member received, so they say the same of each library."""
    leads = await servers.victim(bench.local, leader=True)
    options = bench.options(serializable=serializable, clients=BALANCED_CLIENTS, watches=BALANCED_CLIENTS)
    counts, found, watched = await _counted(bench, program, options)
    off = imbalance(counts)
    by_address = [f"{share:.1%}" + (" (leader)" if e == leads.endpoint else "") for e, share in shares(counts).items()]
    figures = {
        "reads by address": ", ".join(by_address),
        "off the mean": f"{off:.0%}",
        "watches by address": ", ".join(map(str, watched)),
        "failed": f"{len(found.failures)}",
        **of_program(found),
    }
    what = f"{BALANCED_CLIENTS} clients, {kind(serializable)}"
    wanted = {"off the mean": off <= 0.2, "failed": not found.failures}
    raw = {"counts": counts, "watches": watched, "failures": failures(found)}
    return Row(what, program.name, figures, wanted, raw=raw)


# ---- hedging -------------------------------------------------------------------------------------------------


async def hedging(bench: Bench, program: Program, *, stalled: int) -> list[Row]:
    """The same load with hedging and without. The first `stalled` of the three addresses hold up a share of calls."""
    rows, tails = [], {}
    for hedge in (False, True):
        with servers.stalling(bench.local.endpoints, stalled, STALL_MILLISECONDS, STALL_SHARE) as endpoints:
            options = bench.options(endpoints, hedge=hedge, rate=bench.rate / 4)
            running = await asyncio.to_thread(program.start, options)
            try:
                found = await asyncio.to_thread(running.result)
            finally:
                running.stop()
        took = latencies(found)
        made = len(found.reads) + len(found.failures)
        extra = found.attempts / made - 1 if made else 0.0
        tails[hedge] = percentile(took, 0.99)
        figures = {
            "p50": milliseconds(percentile(took, 0.5)),
            "p99": milliseconds(tails[hedge]),
            "p99.9": milliseconds(percentile(took, 0.999)),
            "extra calls": f"{extra:+.1%}",
            "failed": f"{len(found.failures)}",
            **of_program(found),
        }
        what = f"{stalled} of 3 hold up {STALL_SHARE:.0%} of calls, hedge={'on' if hedge else 'off'}"
        row = Row(what, program.name, figures, raw={"failures": failures(found), "extra": extra})
        row.wanted["failed"] = not found.failures
        if hedge:
            gain = tails[False] / tails[True]
            figures["p99 better"] = f"{gain:.1f} times"
            row.wanted["extra calls"] = extra <= 0.051  # the budget begins with ten
            if stalled == len(bench.local.endpoints):  # otherwise fewer than one call of a hundred is held up
                row.wanted["p99 better"] = gain >= 5
        rows.append(row)
    return rows


# ---- the near-cache ------------------------------------------------------------------------------------------


async def near_cache(bench: Bench, keys: Mapping[str, str], prefix: str) -> list[Row]:
    """Reads in one thread, of the asyncio client on its loop and of the blocking client."""
    async with client.connect(bench.local.endpoints) as hf, await hf.cache(prefix) as cache:
        rows = [lookups("hf.cache(prefix).get(key), asyncio", cache, list(keys))]
    rows.append(await consistent_cache(bench.local.endpoints, list(keys), prefix))
    return [*rows, await asyncio.to_thread(blocking_cache, bench.local.endpoints, list(keys), prefix)]


async def consistent_cache(endpoints: list[str], keys: list[str], prefix: str) -> Row:
    """Linearizable reads under a cache lease."""
    async with client.connect(endpoints) as hf:
        await hf.allow_caching(prefix)
        async with await hf.cache(prefix, consistent=True) as cache:
            async with asyncio.timeout(10):
                while not cache.is_current:
                    await cache.current()
            began, reads, leased = time.perf_counter(), 0, 0
            while reads < LOOKUPS // 10:
                for key in keys:
                    if not cache.is_current:
                        await cache.current()
                    else:
                        leased += 1
                    cache.get(key)
                reads += len(keys)
                await asyncio.sleep(0)  # the lease is renewed on this loop
            rate = reads / (time.perf_counter() - began)
        await hf.forbid_caching(prefix)
    figures = {"str keys": f"{rate:,.0f} /s", "under the lease": f"{leased / reads:.1%}"}
    return Row("linearizable reads, hf.cache(prefix, consistent=True), asyncio", "holdfast", figures)


def blocking_cache(endpoints: list[str], keys: list[str], prefix: str) -> Row:
    with client.connect_blocking(endpoints) as hf, hf.cache(prefix) as cache:
        return lookups("hf.cache(prefix).get(key), blocking", cache, keys)


def lookups(what: str, cache: Any, keys: list[str]) -> Row:
    figures, wanted = {}, {}
    for name, wanted_keys in (("str keys", keys), ("bytes keys", [key.encode() for key in keys])):
        get = cache.get
        assert all(get(key) is not None for key in wanted_keys)
        began = time.perf_counter()
        for _ in range(LOOKUPS // len(wanted_keys)):
            for key in wanted_keys:
                get(key)
        rate = LOOKUPS // len(wanted_keys) * len(wanted_keys) / (time.perf_counter() - began)
        figures[name] = f"{rate:,.0f} /s"
        wanted[name] = rate >= 1_000_000
    return Row(what, "holdfast", figures, wanted)


def left_out(what: str, program: Program, error: Failed | None = None) -> Row:
    return Row(what, program.name, reason=str(error) if error else program.reason)
