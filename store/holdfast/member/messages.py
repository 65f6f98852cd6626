"""What members say to each other above Raft: proposals, reads and renewals on their way to the leader."""

from __future__ import annotations

from holdfast.raft.messages import Message

INCARNATION_BITS = 40  # below an incarnation in the id of a question: as many as one start of a member may ask


class Forward(Message):
    """Commands of the sender's clients, for the leader to propose. A lost one is sent again until it is applied."""

    __slots__ = ("commands",)

    def __init__(self, to: int, frm: int, term: int, commands: list[bytes]) -> None:
        super().__init__(to, frm, term)
        self.commands = commands


class Rejected(Message):
    """The leader will not propose this command, and why."""

    __slots__ = ("incarnation", "reason", "seq")

    def __init__(self, to: int, frm: int, term: int, incarnation: int, seq: int, reason: str) -> None:
        super().__init__(to, frm, term)
        self.incarnation = incarnation
        self.seq = seq
        self.reason = reason


class ReadRequest(Message):
    """ "From which applied index on may reads that I took so far be answered?" `id` is never used twice."""

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
    """Keep these leases alive, or with `query` only tell how long they still have."""

    __slots__ = ("id", "leases", "query")

    def __init__(self, to: int, frm: int, term: int, id: int, leases: list[int], query: bool) -> None:
        super().__init__(to, frm, term)
        self.id = id
        self.leases = leases
        self.query = query


class RenewReply(Message):
    """For each lease its time to live in seconds; 0 = unknown or expired (-1 in answer to a query)."""

    __slots__ = ("id", "leases", "ttls")

    def __init__(self, to: int, frm: int, term: int, id: int, leases: list[int], ttls: list[int]) -> None:
        super().__init__(to, frm, term)
        self.id = id
        self.leases = leases
        self.ttls = ttls
