"""The recipes broken on purpose, one rule for each mutant, to show that the simulated applications notice."""

from __future__ import annotations

from typing import Any

from holdfast.machine import Machine
from holdfast.machine.leases import LeaseEvent, Leases
from holdfast.member.lessor import Lessor
from holdfast.proto import raft_pb2
from holdfast.recipes import barrier, liveness, rwlock, transaction
from holdfast.recipes import space as recipes_space
from holdfast.recipes.barrier import DoubleBarrier
from holdfast.recipes.liveness import Liveness, State
from holdfast.recipes.lock import Held
from holdfast.recipes.place import Place
from holdfast.recipes.queue import Item, Queue
from holdfast.recipes.semaphore import Semaphore
from holdfast.recipes.space import Wanted, created, delete, get, insist, kvs, modified, put
from holdfast.recipes.token import Token

from holdfast_lab.sim.mutation import Mutants, Patch, registering

RECIPE_MUTANTS: Mutants = {}
_mutant = registering(RECIPE_MUTANTS)


# ---- sessions ----------------------------------------------------------------------------------------------


@_mutant("the TTL counts from before the renewal was asked for, not from its answer")
def _deadline_from_the_answer(patch: Patch) -> None:
    original = Liveness.renewed

    def renewed(self: Liveness, now: float, asked: float, ttl: float) -> None:
        original(self, now, now, ttl)

    patch(Liveness, "renewed", renewed)


@_mutant("the server's clock may be faster than ours")
def _no_drift(patch: Patch) -> None:
    patch(liveness, "MAX_DRIFT", 0.0)


@_mutant("what a session protects is not used in jeopardy")
def _jeopardy_is_safe(patch: Patch) -> None:
    original = Liveness.state

    def state(self: Liveness, now: float) -> State:
        found = original(self, now)
        return State.SAFE if found is State.JEOPARDY else found

    patch(Liveness, "state", state)


@_mutant("a session that expired stays expired")
def _expired_lives_again(patch: Patch) -> None:
    original = Liveness._extend

    def renewed(self: Liveness, now: float, asked: float, ttl: float) -> None:
        self._gone = False
        original(self, asked, max(ttl, 1.0))

    patch(Liveness, "renewed", renewed)


# ---- places ------------------------------------------------------------------------------------------------


@_mutant("a place is first only while its own key exists")
def _own_key_unwatched(patch: Patch) -> None:
    async def older(self: Place, until: float | None = None) -> tuple[list[bytes], int]:
        found = await insist(self._space, then=[self._before()], until=until)
        return [kv.key for kv in kvs(found)], found.header.revision

    patch(Place, "older", older)


@_mutant("the key before is looked at again before it is one's turn")
def _turn_after_one_event(patch: Patch) -> None:
    async def turn(self: Place, until: float | None = None) -> None:
        older, revision = await self.older(until)
        if len(older) > self._ahead:
            await self._space.change([*(Wanted(key) for key in older), Wanted(self.key)], revision + 1, until)

    patch(Place, "turn", turn)


@_mutant("the session is certainly alive when it is one's turn")
def _turn_in_jeopardy(patch: Patch) -> None:
    async def turn(self: Place, until: float | None = None) -> None:
        while True:
            older, revision = await self.older(until)
            if len(older) <= self._ahead:
                return
            await self._space.change([*(Wanted(key) for key in older), Wanted(self.key)], revision + 1, until)

    def held(self: Held) -> bool:
        return self._mine

    patch(Place, "turn", turn)
    patch(Held, "held", property(held))


@_mutant("a lost answer is asked for again under the same name")
def _enters_anew(patch: Patch) -> None:
    async def enter(self: Place, value: bytes = b"", until: float | None = None) -> None:
        taken = await insist(self._space, then=[put(self.key, value, self._space.lease)], until=until)
        self.revision = taken.header.revision

    patch(Place, "enter", enter)


@_mutant("whoever gives up waiting leaves the queue")
def _given_up_place_stays(patch: Patch) -> None:
    def abandon(self: Place) -> None:
        pass

    patch(Place, "abandon", abandon)


@_mutant("keys have names that are used once, and are deleted by their revision")
def _unlock_by_name(patch: Patch) -> None:
    def own_key(self: Held, kind: bytes = b"") -> bytes:
        return b"%s%s%x" % (self._prefix, kind, self._space.lease)

    async def _delete(self: Place) -> None:
        await insist(self._space, then=[delete(self.key)])

    patch(Held, "_own_key", own_key)
    patch(Place, "_delete", _delete)


@_mutant("order is that of creation, not of names")
def _order_of_names(patch: Patch) -> None:
    original = Place.older

    async def older(self: Place, until: float | None = None) -> tuple[list[bytes], int]:
        found = await insist(
            self._space,
            when=[created(self.key, self.revision)],
            then=[recipes_space.below(self._queue, keys_only=True)],
            until=until,
        )
        if not found.succeeded:
            return await original(self, until)
        return [kv.key for kv in kvs(found) if kv.key < self.key][-self._ahead - 1 :], found.header.revision

    patch(Place, "older", older)


# ---- the recipes -------------------------------------------------------------------------------------------


@_mutant("a writer waits for readers")
def _writers_wait_for_writers_only(patch: Patch) -> None:
    original = rwlock.RWLock.__init__

    def init(self: rwlock.RWLock, space: Any, name: str | bytes) -> None:
        original(self, space, name)
        self.writing._queue = self.reading._queue

    patch(rwlock.RWLock, "__init__", init)


@_mutant("a reader waits for writers that came before it")
def _readers_wait_for_nobody(patch: Patch) -> None:
    original = rwlock.RWLock.__init__

    def init(self: rwlock.RWLock, space: Any, name: str | bytes) -> None:
        original(self, space, name)
        self.reading._queue += b"nobody/"

    patch(rwlock.RWLock, "__init__", init)


@_mutant("a semaphore has as many permits as it says")
def _a_permit_too_many(patch: Patch) -> None:
    def new_place(self: Semaphore) -> Place:
        return Place(self._space, self._own_key(), self._prefix, ahead=self.permits)

    patch(Semaphore, "_new_place", new_place)


@_mutant("the compare of a token is the create revision")
def _token_compares_existence(patch: Patch) -> None:
    def held(self: Token) -> Any:
        return created(b"nobody", 0)

    patch(Token, "held", held)


# ---- work --------------------------------------------------------------------------------------------------


@_mutant("an item is claimed only if nobody has claimed it")
def _claims_what_is_claimed(patch: Patch) -> None:
    async def claim(self: Queue, key: bytes, until: float | None) -> Item | None:
        name = self._claims + key.removeprefix(self._items)
        found = await insist(self._space, then=[get(key), put(name, b"", self._space.lease)])
        there = kvs(found)
        return Item(self._space, key, there[0].value, name, found.header.revision) if there else None

    patch(Queue, "_claim", claim)


@_mutant("an item that is claimed stays in the queue until it is done")
def _claiming_takes_out(patch: Patch) -> None:
    original = Queue._claim

    async def claim(self: Queue, key: bytes, until: float | None) -> Item | None:
        item = await original(self, key, until)
        if item is not None:
            await insist(self._space, then=[delete(key)])
        return item

    patch(Queue, "_claim", claim)


@_mutant("putting in compares that nobody else has put in since the items were counted")
def _bound_without_guard(patch: Patch) -> None:
    original = Queue.put

    async def put_in(self: Queue, value: str | bytes, **how: Any) -> bytes:
        bound, self._bound = self._bound, 0
        try:
            return await original(self, value, **how)
        finally:
            self._bound = bound

    patch(Queue, "put", put_in)


@_mutant("an attempt to enter that comes after the place was given up does not enter")
def _given_up_without_barrier(patch: Patch) -> None:
    original = Place._delete

    async def delete_(self: Place) -> None:
        self._under_way = False
        await original(self)

    patch(Place, "_delete", delete_)


@_mutant("a place that comes back on etcd after it was given up is deleted again")
def _back_on_etcd(patch: Patch) -> None:
    async def keep_deleted(self: Place, revision: int) -> None:
        pass

    patch(Place, "_keep_deleted", keep_deleted)


@_mutant("a barrier opens when all have entered")
def _barrier_opens_early(patch: Patch) -> None:
    original = DoubleBarrier.__init__

    def init(self: DoubleBarrier, space: Any, name: str | bytes, count: int) -> None:
        original(self, space, name, count - 1)

    patch(DoubleBarrier, "__init__", init)


@_mutant("a barrier opens only while those that complete the number are there")
def _barrier_opens_for_the_lost(patch: Patch) -> None:
    patch(barrier, "_there", lambda waiters: [])


@_mutant("what a transaction read has not changed when it takes effect")
def _reads_are_not_compared(patch: Patch) -> None:
    def changed(key: bytes, revision: int) -> Any:
        compare = modified(key, revision)
        compare.result = compare.NOT_EQUAL
        compare.mod_revision = -1
        return compare

    def none_newer(prefix: bytes, revision: int) -> Any:
        return created(b"nobody", 0)

    patch(transaction, "modified", changed)
    patch(transaction, "_none_newer", none_newer)


# ---- lock-delay --------------------------------------------------------------------------------------------


@_mutant("the keys of a lease with a lock-delay stay when it expires")
def _no_lock_delay(patch: Patch) -> None:
    def expire(self: Leases, lease: int) -> LeaseEvent:
        self.revoke(lease)
        return LeaseEvent({}, granted=True)

    patch(Leases, "expire", expire)


@_mutant("a new leader waits for the whole lock-delay")
def _new_leader_ends_the_delay(patch: Patch) -> None:
    lessor = Lessor.promote

    def promoted(self: Lessor, machine: Any, now: int) -> None:
        lessor(self, machine, now)
        for lease in machine.delayed:
            self.clock.granted(lease, 0, now)

    patch(Lessor, "promote", promoted)


@_mutant("a new leader knows the lock-delays that were begun")
def _new_leader_forgets_the_delay(patch: Patch) -> None:
    lessor = Lessor.promote

    def promoted(self: Lessor, machine: Any, now: int) -> None:
        lessor(self, machine, now)
        for lease in machine.delayed:
            self.clock.revoked(lease)

    patch(Lessor, "promote", promoted)


@_mutant("a session that is closed leaves no lock-delay")
def _delay_on_unlock(patch: Patch) -> None:
    original = Machine._revoke

    def revoke(self: Machine, command: raft_pb2.Command) -> Any:
        if command.lease_revoke.id in self.delays:
            command.lease_revoke.expired = command.system = True
        return original(self, command)

    patch(Machine, "_revoke", revoke)
