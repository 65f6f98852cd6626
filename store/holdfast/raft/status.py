"""A read-only view of a member's Raft state, for the services."""

from __future__ import annotations

from typing import Protocol

from holdfast.raft.progress import Progress
from holdfast.raft.quorum import ConfState
from holdfast.raft.types import Settings


class LogExtent(Protocol):
    """What the log holds: the entries after `base_index` up to `last`."""

    @property
    def base_index(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def bytes(self) -> int: ...


class RaftStatus(Protocol):
    """The Raft state of one member; `raft.core.Raft` has it."""

    @property
    def id(self) -> int: ...

    @property
    def term(self) -> int: ...

    @property
    def leader(self) -> int:
        """The leader's id as far as this member knows; 0 if it knows none."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def commit(self) -> int: ...

    @property
    def conf(self) -> ConfState:
        """The newest configuration in the log, which is in force even before it is committed."""

    @property
    def log(self) -> LogExtent: ...

    @property
    def settings(self) -> Settings: ...

    def progress(self, member: int) -> Progress | None:
        """As leader, what is known of `member`."""
