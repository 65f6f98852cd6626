"""Fencing in SQL databases: a table that remembers the highest token that it has seen for each name.

    CREATE TABLE holdfast_fence (name VARCHAR(255) PRIMARY KEY, epoch BIGINT NOT NULL, revision BIGINT NOT NULL)

In the transaction that changes what the lock protects, call `fence` first: it locks the row of the name, so two holders
come one after the other, and the one with the older token is refused.
"""

from __future__ import annotations

from typing import Any, Protocol

from holdfast.client.errors import ClientError
from holdfast.recipes.token import Token

TABLE = "holdfast_fence"
CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} "
    "(name VARCHAR(255) PRIMARY KEY, epoch BIGINT NOT NULL, revision BIGINT NOT NULL)"
)


class Stale(ClientError):
    """A later holder was here: this one has lost the lock and must not change anything."""


class Cursor(Protocol):
    """A cursor of the DB-API (PEP 249)."""

    @property
    def rowcount(self) -> int: ...

    def execute(self, statement: str, parameters: Any = ..., /) -> Any: ...


def fence(cursor: Cursor, name: str, token: Token, *, mark: str = "%s") -> None:
    """Refuse this token if a higher one was seen for `name`, and remember it otherwise. Raises Stale; then roll back.

    `mark`: how parameters are written for this driver: `%s` (psycopg, mysqlclient) or `?` (sqlite3). The isolation must
    be READ COMMITTED at least, which is the default everywhere."""
    cursor.execute(
        f"UPDATE {TABLE} SET epoch = {mark}, revision = {mark} "
        f"WHERE name = {mark} AND (epoch < {mark} OR (epoch = {mark} AND revision <= {mark}))",
        (token.epoch, token.revision, name, token.epoch, token.epoch, token.revision),
    )
    if cursor.rowcount == 1:
        return
    cursor.execute(
        f"INSERT INTO {TABLE} (name, epoch, revision) SELECT {mark}, {mark}, {mark} "
        f"WHERE NOT EXISTS (SELECT 1 FROM {TABLE} WHERE name = {mark})",
        (name, token.epoch, token.revision, name),
    )
    if cursor.rowcount != 1:
        raise Stale(f"{name!r} was already used by a holder after {token}")
