"""Fencing tokens: a number that grows with each holder, so that what a lock protects can refuse a holder of before.

A lock alone proves nothing: its holder may be suspended, and go on after its session has ended. What the lock protects
has to compare tokens, in the same step in which it changes: `Token.held` is that compare for keys of this store,
`holdfast.recipes.sql` the same for SQL databases.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.proto import rpc_pb2
from holdfast.recipes.space import created


class Token(NamedTuple):
    """Compares by (epoch, revision). After a restore from a snapshot revisions are given anew, in a higher epoch."""

    epoch: int
    revision: int
    key: bytes  # of the holder; last, because it says nothing about the order

    def held(self) -> rpc_pb2.Compare:
        """The compare that holds as long as this holder has not lost the lock: `hf.txn().if_(token.held(), …)`."""
        return created(self.key, self.revision)

    def __str__(self) -> str:
        return f"{self.epoch}.{self.revision}"
