"""What must hold after every step, whatever happens (invariants I1 to I7, named in docs/consensus.md)."""

from __future__ import annotations

from hashlib import blake2b

from holdfast.member.core import MemberCore
from holdfast.member.recovery import Replay
from holdfast.raft.log import Entry
from holdfast.raft.messages import AppendReply, Message, Vote, VoteReply
from holdfast.raft.types import HardState


class Violation(Exception):
    """An invariant does not hold. The seed reproduces it."""


def check(condition: bool, what: str) -> None:
    if not condition:
        raise Violation(what)


class Checker:
    """Knows what was ever committed, who ever led, and what was ever promised."""

    def __init__(self) -> None:
        self._leaders: dict[int, int] = {}  # term -> member
        self._votes: dict[int, tuple[int, int]] = {}  # member -> (term, vote)
        self._committed: dict[int, tuple[int, bytes]] = {}  # index -> (term, hash of the entry)
        self._commit_of: dict[int, int] = {}
        self._digests: dict[int, int] = {}  # applied index -> digest of the state
        self.max_committed = 1

    def restarted(self, member: int, durable: HardState) -> None:
        """A crash forgets the commit index, and terms and votes that were not durable (nobody was told of those)."""
        self._commit_of.pop(member, None)
        self._votes[member] = (durable.term, durable.vote)

    def stepped(self, core: MemberCore) -> None:
        raft = core.raft
        if raft.is_leader:
            known = self._leaders.setdefault(raft.term, core.id)
            check(known == core.id, f"I1: {known:x} and {core.id:x} both lead term {raft.term}")
        term, vote = self._votes.get(core.id, (0, 0))
        check(raft.term >= term, f"I1: the term of {core.id:x} fell from {term} to {raft.term}")
        check(
            raft.term > term or vote in (0, raft.vote),
            f"I1: {core.id:x} changed its vote in term {term} from {vote:x} to {raft.vote:x}",
        )
        self._votes[core.id] = (raft.term, raft.vote)

        seen = self._commit_of.get(core.id, 0)
        check(raft.commit >= seen, f"I6: the commit index of {core.id:x} fell from {seen} to {raft.commit}")
        check(
            core.machine.applied_index <= raft.applicable <= raft.commit <= raft.log.last,
            f"I5: {core.id:x} applied {core.machine.applied_index}, may {raft.applicable}, commit {raft.commit}",
        )
        for index in range(max(seen + 1, raft.log.first), raft.commit + 1):
            self._commit(core.id, raft.log.get(index))
        self._commit_of[core.id] = raft.commit
        applied = core.machine.applied_index
        known_digest = self._digests.setdefault(applied, core.machine.digest)
        check(known_digest == core.machine.digest, f"I5: {core.id:x} differs in state at index {applied}")

    def _commit(self, member: int, entry: Entry) -> None:
        this = (entry.term, _hash(entry))
        known = self._committed.setdefault(entry.index, this)
        check(known == this, f"I3: {member:x} committed another entry at {entry.index}: {this} after {known}")
        self.max_committed = max(self.max_committed, entry.index)

    def leads(self, core: MemberCore) -> None:
        """I4: whoever becomes leader has everything that was ever committed."""
        log = core.raft.log
        check(log.last >= self.max_committed, f"I4: leader {core.id:x} lacks entry {self.max_committed}")
        for index in range(log.first, self.max_committed + 1):
            known = self._committed.get(index)
            if known is not None:
                check(log.term(index) == known[0], f"I4: leader {core.id:x} has another entry at {index}")

    def sends(self, message: Message, durable: Replay) -> None:
        """I7: nothing is promised before it is durable."""
        hard = durable.hard_state
        if isinstance(message, AppendReply):
            check(hard.term >= message.term, f"I7: {message!r} before its term is durable")
            if message.ok and message.term == hard.term:
                check(durable.log.last >= message.index, f"I7: {message!r}, durable up to {durable.log.last}")
        elif isinstance(message, VoteReply) and message.granted:
            check(
                hard.term > message.term or (hard.term == message.term and hard.vote == message.to),
                f"I7: {message!r} before the vote is durable ({hard})",
            )
        elif isinstance(message, Vote):
            check(
                hard.term > message.term or (hard.term == message.term and hard.vote == message.frm),
                f"I7: {message!r} before the own vote is durable ({hard})",
            )

    @staticmethod
    def logs_match(cores: list[MemberCore]) -> None:
        """I2: two logs with the same term at an index are the same up to it."""
        for i, one in enumerate(cores):
            for other in cores[i + 1 :]:
                a, b = one.raft.log, other.raft.log
                low, high = max(a.first, b.first), min(a.last, b.last)
                agree = False
                for index in range(high, low - 1, -1):
                    same = a.term(index) == b.term(index)
                    check(same or not agree, f"I2: {one.id:x} and {other.id:x} differ at {index} below a match")
                    if same and not agree:
                        agree = True
                    if same:
                        check(
                            a.get(index).data == b.get(index).data,
                            f"I2: {one.id:x} and {other.id:x} have different data at {index}",
                        )


def _hash(entry: Entry) -> bytes:
    return blake2b(entry.data + repr(entry.conf).encode(), digest_size=8).digest()
