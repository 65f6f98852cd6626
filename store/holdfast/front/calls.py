"""The events that a front passes to the services, and the actions it takes from them, independent of a gRPC library.

Rules: each call has one terminal event and one terminal action, later ones are ignored; order is kept within a call; no
Message exceeds the credit given; once a call is over its high-water mark nothing more is sent on it until Writable;
HalfClose never ends a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from holdfast.outbox import Outbox
from holdfast.status import Code


class AddressInUse(Exception):
    """A port cannot be bound."""


class Kind(Enum):
    UNARY = "unary"  # one message in, one out
    SERVER_STREAM = "server-stream"  # one in, many out
    BIDI = "bidi"  # many in, many out


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of a call, with the names in its verified certificate; there are none without one. `outbox` is that of
    its connection."""

    address: str
    tls: bool = False
    common_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    outbox: Outbox = field(default_factory=Outbox, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `id` is never reused. `deadline_ns` is on the monotonic clock; None: no deadline."""

    id: int
    method: str
    peer: Peer
    metadata: Mapping[str, str]
    deadline_ns: int | None


# ---- events: from the front ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unary:
    call: Call
    body: bytes


@dataclass(frozen=True, slots=True)
class Open:
    call: Call


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class HalfClose:
    id: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Writable:
    id: int


Event = Unary | Open | Message | HalfClose | Cancelled | Writable


# ---- actions: to the front -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a unary call."""

    id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class DescribedReply(Reply):
    """With headers of its own."""

    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Fail:
    id: int
    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Send:
    """One message on a stream."""

    id: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """End a stream with status OK."""

    id: int


@dataclass(frozen=True, slots=True)
class Credit:
    """The client may send `count` more messages on this stream."""

    id: int
    count: int


Action = Reply | Fail | Send | Finish | Credit


class Front(Protocol):
    """A transport. `fileno` becomes readable when `poll` has events."""

    def fileno(self) -> int: ...

    @property
    def waiting(self) -> bool:
        """Whether there are events to poll."""
        ...

    def poll(self, max_events: int) -> list[Event]: ...

    def send(self, actions: Iterable[Action]) -> set[int]:
        """Carry out `actions`. Returns the calls that are now over their high-water mark."""
        ...

    async def drain(self, grace_seconds: float) -> None:
        """Accept no new calls, and wait up to `grace_seconds` for running ones."""
        ...

    async def close(self) -> None: ...
