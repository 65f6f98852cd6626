"""A read-only view of a member's applied state, for the services."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Protocol

from holdfast.auth.store import AuthStore
from holdfast.kv.space import KeySpace
from holdfast.machine.client_sessions import ClientSessions
from holdfast.proto import raft_pb2
from holdfast.raft.quorum import ConfState


class AppliedState(Protocol):
    """The state at `applied_index`. A snapshot replaces this object, so get it from the member each time."""

    @property
    def applied_index(self) -> int: ...

    @property
    def applied_term(self) -> int: ...

    @property
    def busy(self) -> bool:
        """Whether the store has not accepted the last batch yet."""

    @property
    def epoch(self) -> int: ...

    @property
    def lineage(self) -> int:
        """Of a restored cluster: the id of the first one; else 0."""
        ...

    @property
    def restored_from(self) -> int:
        """Of a restored cluster: the revision of the snapshot; else 0."""
        ...

    @property
    def cluster_version(self) -> str: ...

    @property
    def level(self) -> int:
        """The level of behaviour in force (`holdfast.levels`)."""

    @property
    def space(self) -> KeySpace: ...

    @property
    def auth(self) -> AuthStore: ...

    @property
    def clients(self) -> ClientSessions: ...

    @property
    def leases(self) -> Mapping[int, int]:
        """Granted TTL in seconds by id."""

    @property
    def cachable(self) -> Set[bytes]:
        """The prefixes whose keys clients may cache consistently."""

    @property
    def members(self) -> Mapping[int, raft_pb2.MemberInfo]: ...

    @property
    def removed(self) -> Set[int]: ...

    @property
    def conf(self) -> ConfState: ...

    @property
    def conf_index(self) -> int: ...

    @property
    def alarms(self) -> Set[tuple[int, int]]:
        """(member, alarm)"""

    @property
    def counts(self) -> Mapping[str, int]:
        """Successful commands by kind, since this member started."""

    def check_rights(self, command: raft_pb2.Command, via: tuple[str, ...] = ()) -> None:
        """Raise RequestError unless the command's principal has the rights for it."""
