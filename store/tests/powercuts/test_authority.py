"""The true history, with which replicas are compared."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any, cast

from holdfast import client
from holdfast.client.txn import Ops
from holdfast_lab.powercuts.authority import Authority


class Cluster:
    """Acknowledges each transaction with the next revision."""

    op = Ops()

    def __init__(self) -> None:
        self.revision = 1

    def txn(self) -> Any:
        self.revision += 1

        async def commit() -> Any:
            return SimpleNamespace(revision=self.revision)

        return SimpleNamespace(then=lambda *ops: SimpleNamespace(commit=commit))


async def test_each_key_is_known_at_each_revision() -> None:
    authority, hf = Authority("", Random(1)), cast("client.Client", Cluster())
    await authority._commit(hf, {b"/a/1": b"x", b"/b/1": b"y"})
    await authority._commit(hf, {b"/a/1": b"z", b"/a/2": b"new"})
    await authority._commit(hf, {b"/a/1": None})
    await authority._commit(hf, {b"/a/1": b"again"})
    assert list(authority.at(b"/a/", 1)) == []
    assert list(authority.at(b"/a/", 2)) == [(b"/a/1", (b"x", 2, 2, 1))]
    assert list(authority.at(b"/a/", 3)) == [(b"/a/1", (b"z", 2, 3, 2)), (b"/a/2", (b"new", 3, 3, 1))]
    assert list(authority.at(b"/a/", 4)) == [(b"/a/2", (b"new", 3, 3, 1))]
    assert dict(authority.at(b"/a/1", 5)) == {b"/a/1": (b"again", 5, 5, 1)}
    assert list(authority.at(b"/b/", 5)) == [(b"/b/1", (b"y", 2, 2, 1))]
    assert authority.revision == 5
