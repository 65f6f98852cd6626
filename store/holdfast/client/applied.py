"""What a node reports about the configuration that it has applied, and what that says: the rule of *in sync*.

A program applies the keys of a prefix, and reports `Applied(position, digest)` by `Client.report`. Whoever looks at the
cluster compares that with what the keys are now. That the node has received them is not enough: it has to say that it
uses these and no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from holdfast.client.position import Position
from holdfast.client.values import KeyValue


class SyncState(Enum):
    IN_SYNC = "in sync"  # it uses what is wanted
    PENDING = "pending"  # it has not applied the last change yet
    FAILED = "failed"  # it could not apply it
    DRIFTED = "drifted"  # it applied the last change, and uses something else
    UNREACHABLE = "unreachable"  # it has not applied the last change, and does not follow the cluster now
    UNKNOWN = "unknown"  # it has reported nothing that can be read


@dataclass(frozen=True, slots=True)
class Applied:
    """`position`: of the read of the keys that were applied (`RangeResult.position`). `digest`: of these keys (see
    `digest`). `error`: why they could not be."""

    position: Position
    digest: str
    error: str = ""

    def __bytes__(self) -> bytes:
        fields = {"position": str(self.position), "digest": self.digest}
        return json.dumps({**fields, "error": self.error} if self.error else fields).encode()

    @classmethod
    def parse(cls, value: bytes) -> Applied | None:
        """None if it is no such report."""
        try:
            fields = json.loads(value)
            return cls(Position.parse(fields["position"]), str(fields["digest"]), str(fields.get("error", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def applied_key(prefix: str) -> str:
    """Under which key a program reports `Applied` of this prefix."""
    return f"applied/{prefix.strip('/')}"


def digest(kvs: Iterable[KeyValue]) -> str:
    """Of keys and values, whatever their revisions: a value that is written again is the same configuration."""
    total = hashlib.sha256()
    for kv in sorted(kvs, key=lambda kv: kv.key):
        for part in (kv.key, kv.value):
            total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()


def sync_state(wanted: Position, wanted_digest: str, reported: Applied | None, *, reachable: bool) -> SyncState:
    """`wanted`: the position of the last change of the keys. `reachable`: whether the node follows the cluster now.
    That counts only if it has not applied the last change: what it reported of that holds while it is cut off."""
    if reported is None:
        return SyncState.UNKNOWN
    same_cluster = reported.position.cluster_id == wanted.cluster_id
    if not same_cluster or reported.position.revision < wanted.revision:
        return SyncState.PENDING if reachable else SyncState.UNREACHABLE
    if reported.error:
        return SyncState.FAILED
    return SyncState.IN_SYNC if reported.digest == wanted_digest else SyncState.DRIFTED
