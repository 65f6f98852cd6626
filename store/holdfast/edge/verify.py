"""Compares a replica's data with that of its upstream, once a night. What a bug or a bad disk has made of it is found
so, along the whole tree: each server is compared with the one above it.

A range that differs is given up: it is not served any more, and the upstream sends it anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from holdfast.api.follow import VERIFY
from holdfast.edge.core import ReplicaCore
from holdfast.edge.holding import as_range
from holdfast.keyrange import Range
from holdfast.kv.hashing import RangeHash
from holdfast.proto import holdfast_pb2
from holdfast.served.keyspace import ServedSpace
from holdfast.status import Refusal, RequestError

log = logging.getLogger("holdfast.edge")

Ask = Callable[[str, bytes], Awaitable[bytes]]  # a call of the upstream; raises RequestError
RETRY_SECONDS = 600.0
_OWNER = "verify"


class Verifier:
    """`ask` calls the server that the replica follows now. `gave_up` is called when ranges were given up."""

    def __init__(
        self, core: ReplicaCore, served: ServedSpace, ask: Ask, gave_up: Callable[[], None], seconds: float
    ) -> None:
        """`seconds`: between two comparisons."""
        self._core = core
        self._served = served
        self._ask = ask
        self._gave_up = gave_up
        self._seconds = seconds
        self.compared = 0  # times that everything was compared
        self.different = 0  # ranges that were not the same

    async def run(self) -> None:
        """The first one is at a random time, so that not all replicas of a site begin at once."""
        wait = self._seconds * random.random()
        while True:
            await asyncio.sleep(wait)
            try:
                await self.compare()
            except RequestError as error:
                log.info("not compared with the upstream: %s", error.refusal.message)
                wait = min(RETRY_SECONDS, self._seconds)
            else:
                wait = self._seconds

    async def compare(self) -> None:
        """Compare everything that is shown. Raises RequestError if that is not possible now."""
        core = self._core
        ranges, position, space = list(core.shown), core.position, self._served.space
        own = await self._own(ranges)
        request = holdfast_pb2.VerifyRequest(
            ranges=[as_range(r) for r in ranges],
            revision=position.watermark,
            cluster_id=position.cluster_id,
            epoch=position.epoch,
        )
        answer = holdfast_pb2.VerifyResponse.FromString(await self._ask(VERIFY, request.SerializeToString()))
        theirs = [(h.crc, h.keys) for h in answer.hashes]
        differ = [r for r, mine, yours in zip(ranges, own, theirs, strict=True) if mine != yours]
        self.compared += 1
        if differ and self._served.space is space:
            self.different += len(differ)
            log.error(
                "what is here is not what the upstream has at revision %d, between the keys %s: it is fetched anew",
                position.watermark,
                ", ".join(f"{low!r} and {high!r}" for low, high in differ),
            )
            core.give_up(differ)
            self._gave_up()

    async def _own(self, ranges: Sequence[Range]) -> list[tuple[int, int]]:
        """The hashes of what is here. All begin now, and see the same revision."""
        loop = asyncio.get_running_loop()
        space, results = self._served.space, []
        revision = self._core.position.watermark
        for low, high in ranges:
            done: asyncio.Future[RangeHash] = loop.create_future()

            def failed(error: Refusal, done: asyncio.Future[RangeHash] = done) -> None:
                done.set_exception(RequestError(error))

            def begin(low: bytes = low, high: bytes | None = high) -> RangeHash:
                return space.hash_range(low, high, revision)

            self._served.scans.run(begin, done.set_result, failed, owner=_OWNER)
            results.append(done)
        return [hashed.result() for hashed in await asyncio.gather(*results)]
