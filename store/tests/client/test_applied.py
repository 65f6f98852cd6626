"""What a node reports of what it has applied, and what that says."""

from __future__ import annotations

import pytest
from holdfast.client import Applied, Position, SyncState, digest, sync_state
from holdfast.client.values import KeyValue

WANTED, DIGEST = Position(7, 10), "d"


def kv(key: bytes, value: bytes, mod: int = 1) -> KeyValue:
    return KeyValue(key=key, value=value, create_revision=1, mod_revision=mod, version=1, lease=0)


@pytest.mark.parametrize(
    ("reported", "reachable", "state"),
    [
        (None, True, SyncState.UNKNOWN),
        (Applied(Position(7, 9), DIGEST), True, SyncState.PENDING),
        (Applied(Position(7, 9), DIGEST), False, SyncState.UNREACHABLE),
        (Applied(Position(7, 10), DIGEST), True, SyncState.IN_SYNC),
        (Applied(Position(7, 11), DIGEST), False, SyncState.IN_SYNC),
        (Applied(Position(7, 10), "other"), True, SyncState.DRIFTED),
        (Applied(Position(7, 10), DIGEST, "no such unit"), True, SyncState.FAILED),
        (Applied(Position(8, 99), DIGEST), True, SyncState.PENDING),
    ],
)
def test_states(reported: Applied | None, reachable: bool, state: SyncState) -> None:
    assert sync_state(WANTED, DIGEST, reported, reachable=reachable) is state


def test_what_is_reported_is_read_again() -> None:
    for applied in (Applied(WANTED, DIGEST), Applied(WANTED, DIGEST, "why")):
        assert Applied.parse(bytes(applied)) == applied


@pytest.mark.parametrize(
    "value", [b"", b"\xff", b"[]", b"1", b"{}", b'{"position": "x", "digest": "d"}', b'{"position": 1}']
)
def test_what_is_none(value: bytes) -> None:
    assert Applied.parse(value) is None


def test_a_digest_is_of_keys_and_values() -> None:
    one = [kv(b"a", b"1"), kv(b"b", b"2")]
    assert digest(one) == digest([kv(b"b", b"2", 9), kv(b"a", b"1", 8)])
    assert len({digest(kvs) for kvs in (one, one[:1], [], [kv(b"a", b"12"), kv(b"b", b"")], [kv(b"a1", b"")])}) == 5
