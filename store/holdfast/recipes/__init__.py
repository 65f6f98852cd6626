"""Coordination of applications: sessions, locks that fence, elections, queues. They work against etcd, too.

    from holdfast import client, recipes

    async with client.connect("shop-client:2379") as hf, recipes.session(hf) as session:
        async with recipes.Lock(session, "/locks/nightly-report") as token:
            ...  # send `token` with what the lock protects

`holdfast.recipes.blocking` has the same without `await`.
"""

from holdfast.recipes.barrier import Barrier, Broken, DoubleBarrier
from holdfast.recipes.counter import Counter, NoNumber
from holdfast.recipes.election import Election, Leader
from holdfast.recipes.events import Events
from holdfast.recipes.group import Group, Member, Partitioner
from holdfast.recipes.liveness import State
from holdfast.recipes.lock import AlreadyHeld, Lock, NotHeld
from holdfast.recipes.place import PlaceLost
from holdfast.recipes.queue import Item, Queue, QueueFull
from holdfast.recipes.rwlock import RWLock
from holdfast.recipes.semaphore import OtherSize, Semaphore
from holdfast.recipes.sessions import Session, session
from holdfast.recipes.space import SessionLost
from holdfast.recipes.token import Token
from holdfast.recipes.transaction import Contended, Transaction, transact

__all__ = [
    "AlreadyHeld",
    "Barrier",
    "Broken",
    "Contended",
    "Counter",
    "DoubleBarrier",
    "Election",
    "Events",
    "Group",
    "Item",
    "Leader",
    "Lock",
    "Member",
    "NoNumber",
    "NotHeld",
    "OtherSize",
    "Partitioner",
    "PlaceLost",
    "Queue",
    "QueueFull",
    "RWLock",
    "Semaphore",
    "Session",
    "SessionLost",
    "State",
    "Token",
    "Transaction",
    "session",
    "transact",
]
