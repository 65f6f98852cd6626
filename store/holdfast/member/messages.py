"""Messages between members besides those of Raft: proposals, reads and renewals on their way to the leader."""

from __future__ import annotations

from holdfast.raft.messages import Message

INCARNATION_BITS = 40  # low bits of a question's id, below the incarnation: how many questions one start may ask
MAX_INCARNATION = 1 << (64 - INCARNATION_BITS)


class Forward(Message):
    """Commands of the sender's clients, for the leader to propose. The sender repeats them until they are applied."""

    __slots__ = ("commands",)

    def __init__(self, to: int, frm: int, term: int, commands: list[bytes]) -> None:
        super().__init__(to, frm, term)
        self.commands = commands


class Rejected(Message):
    """The leader refuses to propose this command, for `reason`."""

    __slots__ = ("incarnation", "reason", "seq")

    def __init__(self, to: int, frm: int, term: int, incarnation: int, seq: int, reason: str) -> None:
        super().__init__(to, frm, term)
        self.incarnation = incarnation
        self.seq = seq
        self.reason = reason


class ReadRequest(Message):
    """Asks for the index that the sender has to apply before it answers reads received so far. Ids are never reused."""

    __slots__ = ("id",)

    def __init__(self, to: int, frm: int, term: int, id: int) -> None:
        super().__init__(to, frm, term)
        self.id = id


class ReadReply(Message):
    __slots__ = ("id", "index")

    def __init__(self, to: int, frm: int, term: int, id: int, index: int) -> None:
        super().__init__(to, frm, term)
        self.id = id
        self.index = index


class Renew(Message):
    """Renew these leases, or with `query` only tell how much time they have left."""

    __slots__ = ("id", "leases", "query")

    def __init__(self, to: int, frm: int, term: int, id: int, leases: list[int], query: bool) -> None:
        super().__init__(to, frm, term)
        self.id = id
        self.leases = leases
        self.query = query


class RenewReply(Message):
    """For each lease its TTL in seconds (time left, for a query); 0 (for a query: -1) = unknown or expired."""

    __slots__ = ("id", "leases", "ttls")

    def __init__(self, to: int, frm: int, term: int, id: int, leases: list[int], ttls: list[int]) -> None:
        super().__init__(to, frm, term)
        self.id = id
        self.leases = leases
        self.ttls = ttls
