"""What must hold after every step, whatever happens: the invariants I1 to I9 and I14, I15 (docs/consensus.md).

Only the node that moved is looked at. It is compared with what is known of every index and term, so that two nodes
that differ are found through what the first of them left here. Quorums are counted anew, from what is on the disks.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.kv.rows import PUT, Change
from holdfast.member.core import MemberCore
from holdfast.member.interface import Output
from holdfast.proto import kv_pb2, raft_pb2
from holdfast.raft.log import Entry, Log
from holdfast.raft.messages import Append, AppendReply, Message, Vote, VoteReply
from holdfast.raft.progress import Mode
from holdfast.raft.quorum import ConfState
from holdfast.raft.types import DurableAppend, Role
from holdfast.reported import PREFIX as REPORTED

from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.oracle import Oracle
from holdfast_lab.sim.violation import Violation, check
from holdfast_lab.sim.world import World

LONG_TAIL = 4  # entries


class Checker:
    """Records everything that was ever committed, all leaders, and everything that was ever promised."""

    def __init__(
        self, world: World, oracle: Oracle, ledger: RequestLedger, nodes: Mapping[int, Node], slowest: float
    ) -> None:
        self._world = world
        self._oracle = oracle
        self._ledger = ledger
        self._nodes = nodes
        self._slowest = slowest  # the shortest that a second may be by a fast clock
        self._leaders: dict[int, int] = {}  # term -> member
        self._votes: dict[int, tuple[int, int]] = {}  # member -> (term, vote)
        self._entries: dict[tuple[int, int], tuple[Entry, int | None]] = {}  # (index, term) -> it, previous term
        self._committed: dict[int, Entry] = {}
        self._committed_in: dict[int, int] = {}  # index -> term of the leader that committed it
        self._commit_of: dict[int, int] = {}
        self._digests: dict[int, int] = {}  # applied index -> digest of the state
        self._conf_before: dict[int, tuple[int, ConfState]] = {}  # (index, configuration) after a member's last step
        self._matched: dict[tuple[int, int], tuple[int, int]] = {}  # (leader, member) -> (term, match) looked at
        self._roles: dict[int, tuple[Role, int]] = {}
        self.values_are_unique = True
        self._values: set[bytes] = set()
        self._conf_of: dict[int, int] = {}
        self._last_of: dict[int, int] = {}  # member -> end of its log at its last write
        self._revocations: dict[tuple[int, int], tuple[int, int]] = {}  # entry -> (lease, when it was proposed)
        self._hinted: dict[int, int] = {}  # member -> when it last got the hint that a connection closed
        self._level = 0  # the cluster's level of behaviour
        self.values_are_unique = True  # every value is written by only one operation
        self.max_committed = 1
        self.conf = ConfState()  # the newest committed configuration
        self.members_ever: set[int] = set()
        self.elections = 0

    def restarted(self, node: Node) -> None:
        """A crash loses the commit index, and terms and votes that were not durable (which were not yet sent)."""
        hard = node.disk.durable.hard_state
        self._commit_of.pop(node.id, None)
        self._roles.pop(node.id, None)
        self._conf_before.pop(node.id, None)
        self._votes[node.id] = (hard.term, hard.vote)

    # ---- after a step --------------------------------------------------------------------------------------

    def stepped(self, node: Node, core: MemberCore, out: Output) -> None:
        raft = core.raft
        self._check_vote(core)
        if out.append is not None:
            self._appended(core, out.append)
        role = (raft.role, raft.term)
        if self._roles.get(core.id) != role:
            self._role_changed(core, role)
        seen = self._commit_of.get(core.id, 0)
        applied = core.machine.applied_index
        if not applied <= raft.applicable <= raft.commit <= raft.log.last or raft.commit < seen:
            raise Violation(
                "I6" if raft.commit < seen else "I5",
                f"{core.id:x} applied {applied}, may {raft.applicable}, commit {raft.commit} after {seen}",
            )
        stable = raft.stable
        if stable > node.disk.state_index and not _has(node.disk.durable.log, stable, raft.log.term(stable)):
            raise Violation("I7", f"{core.id:x} takes {stable} for durable, which is not on its disk")
        if raft.commit > seen:
            for index in range(max(seen + 1, raft.log.first), raft.commit + 1):
                self._commit(core, raft.log.get(index))
            self._commit_of[core.id] = raft.commit
            if raft.is_leader:
                self._held_by_quorum(core, raft.commit)
        self._conf_before[core.id] = (raft.conf_index, raft.conf)
        for changes in out.changes:
            news = changes[0].revision > self._oracle.revision
            self._oracle.learn(changes, core.id)
            if news and self.values_are_unique:
                self._check_once(changes)
        if core.machine.level > self._level:
            self._level_raised(core)
        digest = self._digests.setdefault(applied, core.machine.digest)
        if digest != core.machine.digest:
            raise Violation("I5", f"{core.id:x} differs in state at index {applied}")
        if raft.is_leader:
            self._check_matches(core)
        if out.installed and (raft.conf_index, raft.conf) != (core.machine.conf_index, core.machine.conf):
            raise Violation("I8", f"{core.id:x} took a snapshot with {core.machine.conf} and holds to {raft.conf}")

    def _level_raised(self, core: MemberCore) -> None:
        """I16: a behaviour is used only once every member of the configuration supports it."""
        self._level = core.machine.level
        if self._level == 1:
            return
        self._world.sometimes("cluster version raised")
        for member in self.conf.members():
            other = self._nodes[member].core
            told = self._level if other is None else other.raft.level
            check(told >= self._level, "I16", f"the cluster is at level {self._level}, and {member:x} knows {told}")

    def refused(self, node: Node, refused: list[tuple[int, str]]) -> None:
        """I17: a message of a correct member is never refused, except if by the receiver's log the sender is no member
        any more, or not yet."""
        for member, why in refused:
            check(why == "it is not a member", "I17", f"{node.id:x} refuses {member:x}: {why}")

    def hinted(self, member: int) -> None:
        """This member gets the hint that a connection closed."""
        self._hinted[member] = self._world.now

    def _check_vote(self, core: MemberCore) -> None:
        raft = core.raft
        term, vote = self._votes.get(core.id, (0, 0))
        if raft.term < term:
            raise Violation("I1", f"the term of {core.id:x} fell from {term} to {raft.term}")
        if raft.term == term and vote not in (0, raft.vote):
            raise Violation("I1", f"{core.id:x} changed its vote in term {term} from {vote:x} to {raft.vote:x}")
        self._votes[core.id] = (raft.term, raft.vote)

    def _role_changed(self, core: MemberCore, role: tuple[Role, int]) -> None:
        before = self._roles.get(core.id)
        self._roles[core.id] = role
        raft = core.raft
        if raft.role is Role.LEADER:
            known = self._leaders.setdefault(raft.term, core.id)
            check(known == core.id, "I1", f"{known:x} and {core.id:x} both lead term {raft.term}")
            self.elections += 1
            self._elected_by_quorum(core)
            self._complete(core)
            if sum(1 for r, _ in self._roles.values() if r is Role.LEADER) > 1:
                self._world.sometimes("two leaders, in different terms")
            if raft.conf.joint:
                self._world.sometimes("leader elected in a joint configuration")
            if self._world.now < self._hinted.get(core.id, -SECOND) + SECOND // 2:
                self._world.sometimes("leader elected after a hint")
        elif raft.role is Role.CANDIDATE:
            if sum(1 for r, t in self._roles.values() if r is Role.CANDIDATE and t == raft.term) > 1:
                self._world.sometimes("two candidates in one term")
        elif before is not None and before[0] is Role.LEADER and before[1] == raft.term:
            self._world.sometimes("leader stepped down in its term")
            if not raft.conf.is_voter(core.id):
                self._world.sometimes("leader removed itself")

    def _elected_by_quorum(self, core: MemberCore) -> None:
        """I1: a majority of each half has durably voted for the leader (or has moved on to a later term since)."""
        raft = core.raft
        for half in (raft.conf.voters, raft.conf.outgoing):
            hard = {m: self._nodes[m].disk.durable.hard_state for m in half}
            gave = [m for m, h in hard.items() if h.term > raft.term or (h.term, h.vote) == (raft.term, core.id)]
            if half and 2 * len(gave) <= len(half):
                raise Violation("I1", f"{core.id:x} leads term {raft.term} with the durable votes of {gave} of {half}")

    def _complete(self, core: MemberCore) -> None:
        """I4: a new leader has everything that was committed in earlier terms. (A leader that is elected late, when a
        later term already has a leader, need not have what that leader has committed.)"""
        log, term = core.raft.log, core.raft.term
        for index in range(self.max_committed, log.base_index, -1):
            known = self._committed.get(index)
            if known is not None and self._committed_in[index] < term:
                check(log.term(index) == known.term, "I4", f"leader {core.id:x} of term {term} lacks {known}")

    # ---- the log -------------------------------------------------------------------------------------------

    def _appended(self, core: MemberCore, append: DurableAppend) -> None:
        if append.truncate_from:
            self._world.sometimes("entries truncated")
            if self._last_of.get(core.id, 0) >= append.truncate_from + LONG_TAIL:
                self._world.sometimes("long tail truncated")
            if self._conf_of.get(core.id, 0) >= append.truncate_from:
                self._world.sometimes("configuration truncated")
        self._last_of[core.id] = core.raft.log.last
        self._conf_of[core.id] = core.raft.conf_index
        if not append.entries:
            return
        log = core.raft.log
        before = log.term(append.entries[0].index - 1)
        for entry in append.entries:
            self._check_entry(core, entry, before)
            before = entry.term

    def _check_entry(self, core: MemberCore, entry: Entry, before: int | None) -> None:
        """I2, by induction: entries of the same index and term are the same, and so is the term of the entry before."""
        key = (entry.index, entry.term)
        known = self._entries.get(key)
        if known is None:
            self._entries[key] = (entry, before)
            self._made(core, entry)
            return
        same = known[0] is entry or (known[0].data == entry.data and known[0].conf == entry.conf)
        if not same or (before is not None and known[1] is not None and before != known[1]):
            raise Violation("I2", f"{core.id:x} has another entry {entry.index}@{entry.term} than it was made")

    def _made(self, core: MemberCore, entry: Entry) -> None:
        """Record an entry that a leader has made."""
        raft = core.raft
        known = self._leaders.get(entry.term)
        check(known in (None, core.id), "I3", f"{core.id:x} made an entry in term {entry.term} of {known or 0:x}")
        if entry.conf is not None:
            self._check_change(raft.confs.at(entry.index - 1)[1], entry.conf)
            if entry.conf.joint:
                self._world.sometimes("joint configuration")
            uncommitted = [i for i in raft.confs.since(max(raft.commit, raft.log.base_index)) if i < entry.index]
            check(not uncommitted, "I8", f"{core.id:x} changes the configuration at {entry.index} and {uncommitted}")
        if entry.data:
            command = raft_pb2.Command.FromString(entry.data)
            if command.HasField("lease_revoke") and command.origin == core.id:
                self._revocations[entry.index, entry.term] = (command.lease_revoke.id, self._world.now)

    @staticmethod
    def _check_change(old: ConfState, new: ConfState) -> None:
        """I8: the configuration changes only in steps whose quorums overlap."""
        kept = new.voters == old.voters and new.outgoing == old.outgoing
        entered = not old.joint and new.outgoing == old.voters
        left = old.joint and not new.outgoing and new.voters == old.voters
        check(kept or entered or left, "I8", f"a configuration {new} made out of {old}")

    def _commit(self, core: MemberCore, entry: Entry) -> None:
        if entry.index not in self._committed:
            self._committed_in[entry.index] = core.raft.term
            if (entry.index, entry.term) in self._revocations:
                self._ledger.revoked(*self._revocations[entry.index, entry.term], self._slowest)
        known = self._committed.setdefault(entry.index, entry)
        if known is not entry and (known.term != entry.term or known.data != entry.data or known.conf != entry.conf):
            raise Violation("I3", f"{core.id:x} committed {entry} at {entry.index}, after {known} was")
        if entry.index > self.max_committed:
            self.max_committed = entry.index
            if entry.conf is not None:
                self.conf = entry.conf
                self.members_ever |= set(entry.conf.members())

    def _held_by_quorum(self, core: MemberCore, index: int) -> None:
        """I6: an entry that a leader commits is on the disks of a majority; in a joint configuration, of each half.

        A step that commits may also begin a change of the configuration, afterwards: its entry is then behind `index`,
        and the configuration before the step counts."""
        raft = core.raft
        term = raft.log.term(index)
        before_index, before = self._conf_before.get(core.id, (raft.conf_index, raft.conf))
        conf = before if before_index < raft.conf_index and index < raft.conf_index else raft.conf
        for half in (conf.voters, conf.outgoing):
            holding = [m for m in half if _has(self._nodes[m].disk.durable.log, index, term)]
            if half and 2 * len(holding) <= len(half):
                names = ", ".join(f"{m:x}" for m in holding)
                raise Violation("I6", f"{core.id:x} commits {index}, which only {names} of {half} have")
        if term != raft.term:
            raise Violation("I6", f"{core.id:x} commits {index} of term {term} by counting in term {raft.term}")

    def _check_matches(self, core: MemberCore) -> None:
        """I9: the entries that a leader believes a member to have are on that member's disk."""
        raft = core.raft
        assert raft.leading is not None
        if raft.leading.leased_reads:
            self._world.sometimes("read by lease")
        for member, progress in raft.leading.progress.items():
            if progress.mode is Mode.REPLICATE and not progress.may_send():
                compacted = raft.log.term(progress.next - 1) is None
                self._world.sometimes("window full and its place compacted" if compacted else "window full")
            now = (raft.term, progress.match)
            if self._matched.get((core.id, member)) == now:
                continue
            self._matched[core.id, member] = now
            check(0 <= progress.match < progress.next, "I9", f"match {progress.match}, next {progress.next}")
            durable = self._nodes[member].disk.durable
            if durable.hard_state.term == raft.term and progress.match:
                term = raft.log.term(progress.match)
                if term is not None and not _has(durable.log, progress.match, term):
                    raise Violation("I9", f"{core.id:x} believes that {member:x} has {progress.match}@{term}")

    def _check_once(self, changes: list[Change]) -> None:
        """I14: what a client wrote once is applied once. Reports are numbers of their nodes, and may be equal."""
        for change in changes:
            if self.values_are_unique and change.type == PUT and not change.key.startswith(REPORTED):
                value = kv_pb2.KeyValue.FromString(change.kv).value
                check(value not in self._values, "I14", f"{value!r} was written twice")
                self._values.add(value)

    # ---- messages ------------------------------------------------------------------------------------------

    def sends(self, node: Node, message: Message) -> None:
        """I7: nothing is promised before it is durable."""
        durable = node.disk.durable
        hard = durable.hard_state
        if isinstance(message, Append):
            self._looks_at_append(node, message)
        elif isinstance(message, AppendReply):
            if hard.term < message.term or (
                message.ok and message.term == hard.term and durable.log.last < message.index
            ):
                raise Violation("I7", f"{message!r}, durable is term {hard.term} up to {durable.log.last}")
        elif isinstance(message, VoteReply | Vote):
            if isinstance(message, VoteReply) and not message.granted:
                return
            to = message.to if isinstance(message, VoteReply) else message.frm
            if hard.term < message.term or (hard.term == message.term and hard.vote != to):
                raise Violation("I7", f"{message!r} before the vote is durable ({hard})")

    def _looks_at_append(self, node: Node, message: Append) -> None:
        """Records interesting states and checks nothing: a follower may trust an append's commit index only up to the
        last entry of that append."""
        verified = message.prev_index + len(message.entries)
        if message.commit > verified:
            self._world.sometimes("commit index beyond its append")
        assert node.core is not None
        if message.entries and verified < node.core.raft.log.last:
            self._world.sometimes("append split")


def _has(log: Log, index: int, term: int | None) -> bool:
    return index <= log.base_index or log.term(index) == term
