"""What simulated applications do besides holding: they work on queues, meet at barriers, and transfer money.

The referee of these is `Works`: R6, an item is claimed by one worker at a time, and none that was put in is lost; R7,
who passes a barrier has met as many as it is for; R8, the sum of all accounts is the same at every revision.
"""

from __future__ import annotations

from random import Random

from holdfast.client.errors import OutcomeUnknown
from holdfast.keyrange import prefix_end
from holdfast.kv.rows import DELETE
from holdfast.proto import kv_pb2
from holdfast.recipes.barrier import Broken, DoubleBarrier
from holdfast.recipes.liveness import State
from holdfast.recipes.place import PlaceLost
from holdfast.recipes.queue import Item, Queue
from holdfast.recipes.transaction import Contended, Transaction, transact

from holdfast_lab.sim.apps.space import SimSpace
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.violation import check
from holdfast_lab.sim.world import World

QUEUE, BARRIER, BANK = b"r/queue", b"r/barrier", b"bank/"
BOUND = 4
MEETING = 2
ACCOUNTS, EACH = 3, 100


class _Claimed:
    """An item in the hands of a worker, until it says that it is done with it."""

    def __init__(self, who: int, space: SimSpace, item: Item) -> None:
        self.who = who
        self.space = space
        self.item = item
        self.over = False

    @property
    def stands(self) -> bool:
        return not self.over and self.space.state() is State.SAFE


class Works:
    """Does the work of all applications and judges it."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self._world = world
        self._oracle = oracle
        self._claims: dict[bytes, list[_Claimed]] = {}
        self._put: set[bytes] = set()  # items that are certainly in the queue
        self._finished: set[bytes] = set()  # items that somebody said, or tried to say, are done
        self.deleted: set[bytes] = set()  # keys that the administrator deleted

    async def some(self, who: int, space: SimSpace, chance: Random) -> None:
        """One piece of work."""
        draw = chance.random()
        if draw < 0.3:
            await self._produce(space, chance)
        elif draw < 0.65:
            await self._consume(who, space, chance)
        elif draw < 0.8:
            await self._meet(space, chance)
        else:
            await self._transfer(space, chance)

    # ---- queue ---------------------------------------------------------------------------------------------

    async def _produce(self, space: SimSpace, chance: Random) -> None:
        key = await Queue(space, QUEUE, BOUND).put(space.nonce(), priority=chance.randrange(3), timeout=1.0)
        self._put.add(key)
        there = self._oracle.range(QUEUE + b"/items/", prefix_end(QUEUE + b"/items/"), self._oracle.revision)
        check(len(there) <= BOUND, "R6", f"there are {len(there)} items, and {BOUND} may be")

    async def _consume(self, who: int, space: SimSpace, chance: Random) -> None:
        item = await Queue(space, QUEUE, BOUND).get(timeout=2 * chance.random())
        if item is None:
            return
        claim = _Claimed(who, space, item)
        others = [c.who for c in self._claims.get(item.key, []) if c.stands and c.item.token.key not in self.deleted]
        mine = item.token.key not in self.deleted
        check(not (others and mine and claim.stands), "R6", f"{who} has {item.key!r}, and so do {others}")
        self._claims.setdefault(item.key, []).append(claim)
        self._world.sometimes("item claimed")
        for _ in range(chance.randrange(8)):
            await space.process.pause()
        claim.over = True  # before the answer: the item may be another worker's by then
        try:
            if chance.random() < 0.2:
                await item.release()
                self._world.sometimes("item given back")
            else:
                self._finished.add(item.key)
                await item.done()
        except PlaceLost:
            self._world.sometimes("item lost to another worker")

    # ---- barrier -------------------------------------------------------------------------------------------

    async def _meet(self, space: SimSpace, chance: Random) -> None:
        barrier = DoubleBarrier(space, BARRIER, MEETING)
        if not await barrier.enter(timeout=1 + 2 * chance.random()):
            return
        self._world.sometimes("barrier passed")
        try:
            await barrier.leave()
        except Broken:
            self._world.sometimes("barrier broken")

    # ---- transactions --------------------------------------------------------------------------------------

    async def _transfer(self, space: SimSpace, chance: Random) -> None:
        one, other = chance.sample(range(ACCOUNTS), 2)
        amount = chance.randrange(1, 30)

        async def work(transaction: Transaction) -> None:
            accounts = await transaction.range(BANK)
            if not accounts:
                for number in range(ACCOUNTS):
                    transaction.put(BANK + b"%d" % number, str(EACH))
                return
            await space.process.pause()
            for number, change in ((one, -amount), (other, amount)):
                key = BANK + b"%d" % number
                transaction.put(key, str(int(await transaction.get(key) or b"0") + change))

        try:
            await transact(space.txn, work, attempts=8)
            self._world.sometimes("transfer made")
        except OutcomeUnknown:
            self._world.sometimes("transfer of unknown outcome")
        except Contended:
            self._world.sometimes("transfer given up")

    # ---- the end -------------------------------------------------------------------------------------------

    def end(self) -> None:
        there = self._oracle.range(QUEUE + b"/items/", prefix_end(QUEUE + b"/items/"), self._oracle.revision)
        left = {kv_pb2.KeyValue.FromString(row).key for row in there}
        lost = self._put - left - self._finished - self.deleted
        check(not lost, "R6", f"items are lost: {sorted(lost)}")
        self._meetings()
        self._sums()

    def _meetings(self) -> None:
        """R7: when the barrier opened, so many had entered."""
        here: set[bytes] = set()
        for change in self._oracle.events:
            if change.key.startswith(BARRIER + b"/waiters/"):
                (here.discard if change.type == DELETE else here.add)(change.key)
            elif change.key == BARRIER + b"/ready" and change.type != DELETE:
                check(len(here) >= MEETING, "R7", f"the barrier opened at {change.revision} for {sorted(here)}")

    def _sums(self) -> None:
        accounts: dict[bytes, int] = {}
        events = [c for c in self._oracle.events if c.key.startswith(BANK)]
        for number, change in enumerate(events):
            accounts[change.key] = int(kv_pb2.KeyValue.FromString(change.kv).value)
            if number + 1 == len(events) or events[number + 1].revision != change.revision:
                total = sum(accounts.values())
                check(total == ACCOUNTS * EACH, "R8", f"the sum at revision {change.revision} is {total}: {accounts}")
