"""The messages of Raft. Plain slotted classes, because every write makes and reads several of them."""

from __future__ import annotations

from holdfast.raft.log import Entry


class Message:
    """Sender, receiver and term. A pre-vote carries the term of the election it asks about, not the sender's term."""

    __slots__ = ("frm", "term", "to")

    def __init__(self, to: int, frm: int, term: int) -> None:
        self.to = to
        self.frm = frm
        self.term = term

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for cls in type(self).__mro__[:-2]
            for name in cls.__dict__.get("__slots__", ())
        )
        return f"{type(self).__name__}({self.frm:x}->{self.to:x} term={self.term} {fields})"


class PreVote(Message):
    __slots__ = ("last_index", "last_term")

    def __init__(self, to: int, frm: int, term: int, last_index: int, last_term: int) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.last_index = last_index
        self.last_term = last_term


class PreVoteReply(Message):
    __slots__ = ("granted",)

    def __init__(self, to: int, frm: int, term: int, granted: bool) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.granted = granted


class Vote(Message):
    """`transfer`: the leader itself asked for this election, so promises to the leader do not forbid the vote."""

    __slots__ = ("last_index", "last_term", "transfer")

    def __init__(self, to: int, frm: int, term: int, last_index: int, last_term: int, transfer: bool) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.last_index = last_index
        self.last_term = last_term
        self.transfer = transfer


class VoteReply(Message):
    __slots__ = ("granted",)

    def __init__(self, to: int, frm: int, term: int, granted: bool) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.granted = granted


class Append(Message):
    __slots__ = ("commit", "entries", "prev_index", "prev_term")

    def __init__(
        self, to: int, frm: int, term: int, prev_index: int, prev_term: int, entries: list[Entry], commit: int
    ) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.prev_index = prev_index
        self.prev_term = prev_term
        self.entries = entries
        self.commit = commit


def same_append(one: Message, other: Message) -> bool:
    """Whether both are appends with the same content, whoever receives them."""
    return (
        isinstance(one, Append)
        and isinstance(other, Append)
        and one.term == other.term
        and one.prev_index == other.prev_index
        and one.prev_term == other.prev_term
        and one.commit == other.commit
        and one.entries == other.entries  # entries are compared by identity
    )


class AppendReply(Message):
    """`ok`: everything up to `index` is durable at the sender. Otherwise `index` is the prev_index that did not match,
    and (`hint_index`, `hint_term`) the sender's newest entry that could match."""

    __slots__ = ("hint_index", "hint_term", "index", "ok")

    def __init__(
        self, to: int, frm: int, term: int, ok: bool, index: int, hint_index: int = 0, hint_term: int = 0
    ) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.ok = ok
        self.index = index
        self.hint_index = hint_index
        self.hint_term = hint_term


class Heartbeat(Message):
    """`round` numbers the rounds by which a leader confirms that it still leads; never used twice in a term."""

    __slots__ = ("commit", "digest", "digest_index", "round")

    def __init__(
        self, to: int, frm: int, term: int, commit: int, round: int, digest_index: int = 0, digest: int = 0
    ) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.commit = commit
        self.round = round
        self.digest_index = digest_index
        self.digest = digest


class HeartbeatReply(Message):
    """`promise`: the sender votes for no candidate within an election timeout from now, unless the leader transfers
    leadership. `level`: the highest level of behaviour that its program supports; Raft only carries it."""

    __slots__ = ("level", "promise", "round")

    def __init__(self, to: int, frm: int, term: int, round: int, promise: bool = False, level: int = 0) -> None:
        self.to, self.frm, self.term = to, frm, term
        self.round = round
        self.promise = promise
        self.level = level


class TimeoutNow(Message):
    """The leader asks this member to stand for election at once (thesis section 3.10)."""

    __slots__ = ()
