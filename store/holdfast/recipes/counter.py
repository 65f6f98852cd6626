"""A number that several sessions add to."""

from __future__ import annotations

from holdfast.client.errors import ClientError
from holdfast.client.values import to_bytes
from holdfast.recipes.transaction import Commit, Transaction, transact


class NoNumber(ClientError):
    """The key has a value that is not a number."""


class Counter:
    """A decimal number under a key; 0 if the key does not exist. `commit`: `Client.commit`."""

    def __init__(self, commit: Commit, key: str | bytes) -> None:
        self._commit = commit
        self._key = to_bytes(key)

    async def add(self, number: int = 1) -> int:
        """Add, and return the sum. Raises NoNumber; OutcomeUnknown if it may have been added, or may not."""

        async def work(transaction: Transaction) -> int:
            total = self._number(await transaction.get(self._key)) + number
            transaction.put(self._key, str(total))
            return total

        return await transact(self._commit, work)

    async def value(self) -> int:
        """The number now. Raises NoNumber."""
        return self._number(await Transaction(self._commit).get(self._key))

    def _number(self, value: bytes | None) -> int:
        try:
            return int(value or b"0")
        except ValueError:
            raise NoNumber(f"the key {self._key!r} has {value!r}, which is not a number") from None
