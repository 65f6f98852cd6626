"""Clients: each sends one request at a time, to changing members, and records the answers."""

from __future__ import annotations

from random import Random
from typing import Any

from holdfast.kv import requests
from holdfast.kv.store import StateDamaged
from holdfast.member.core import MemberCore
from holdfast.member.interface import Answer, KeepAlive, Propose, Read
from holdfast.proto import holdfast_pb2, kv_pb2, raft_pb2, rpc_pb2
from holdfast.status import (
    COMPACTED,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    SEQUENCES_UNSUPPORTED,
    SESSION_ENDED,
    SESSION_FORGOTTEN,
    SESSION_OTHER_COMMAND,
    STOPPED,
    TIMEOUT,
    TIMEOUT_LEADER_FAILED,
    Refusal,
)

from holdfast_lab.sim.ledger import Lease, RequestLedger
from holdfast_lab.sim.mix import MS, SECOND
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.operations import NEVER, Kind, Operation, Outcome
from holdfast_lab.sim.violation import check

PATIENCE_NS = 4 * SECOND
GIVE_UP_NS = 7 * SECOND
KEYS = [b"k%d" % n for n in range(8)]
SPAN = (b"k", b"l")
LOCK = b"k/lock"
SEQUENCE = b"k/seq/"
LONGEST_USE_MS = 12_000
SESSION_TTL = 13  # no other lease has this TTL
_UNKNOWN = (TIMEOUT, TIMEOUT_LEADER_FAILED, STOPPED)
_BY_THE_MACHINE = (
    COMPACTED,
    FUTURE_REVISION,
    KEY_NOT_FOUND,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    SEQUENCES_UNSUPPORTED,
)

Version = tuple[bytes, int, int, int, int]


class Client:
    """Does operations that its own generator chooses. With a session, it repeats a command whose answer was lost."""

    def __init__(
        self,
        ledger: RequestLedger,
        number: int,
        chance: Random,
        session: bool,
        misuse: float = 0.0,
        sequences: float = 0.0,
    ) -> None:
        """`misuse`: how often the number of a finished command is used for another command. `sequences`: how often a
        put makes a key in sequence."""
        self._ledger = ledger
        self._world = ledger.world
        self._number = number
        self._chance = chance
        self._wants_session = session
        self._misuse = misuse
        self._misuse_chance = self._world.chance(f"misuse/{number}")
        self._sequences = sequences
        self._sequences_chance = self._world.chance(f"sequences/{number}")
        self._session = 0
        self._session_seq = 0
        self._session_renew_at = 0
        self._lease: Lease | None = None
        self._seen: dict[bytes, int] = {}  # key -> mod revision, as last read
        self._connected: Node | None = None
        self._busy = False
        self.stopping = False
        self._world.at(self._world.now + chance.randrange(SECOND), self._next)

    # ---- what to do next -----------------------------------------------------------------------------------

    def _next(self) -> None:
        if self.stopping or self._busy:
            return
        draw, chance = self._chance.random(), self._chance
        if self._wants_session and (not self._session or self._world.now >= self._session_renew_at):
            if self._session:
                self._keep_alive(self._session)
            else:
                self._open_session()
        elif draw < 0.30:
            self._put()
        elif draw < 0.36:
            self._delete()
        elif draw < 0.50:
            self._cas()
        elif draw < 0.72:
            self._get()
        elif draw < 0.84:
            self._get_stale()
            self._later()
        elif draw < 0.96:
            self._use_lease()
        elif self._ledger.oracle.revision > 30 and chance.random() < 0.3:
            self._compact()
        else:
            self._take_lock()

    def _later(self) -> None:
        self._busy = False
        self._world.at(self._world.now + int((0.1 + self._chance.random()) * 1000 * MS), self._next)

    def _begin(self, kind: Kind, **fields: Any) -> Operation:
        self._busy = True
        operation = Operation(self._ledger.next_id(), kind, invoked=self._world.now, **fields)
        self._ledger.history.append(operation)
        return operation

    def _key(self) -> bytes:
        return self._chance.choice(KEYS)

    def _value(self) -> bytes:
        return b"%d.%d" % (self._number, len(self._ledger.history))

    def _node(self) -> Node | None:
        """The member to ask: mostly the same as before, as with an open connection."""
        if self._connected is None or not self._connected.up or self._chance.random() < 0.15:
            nodes = self._ledger.nodes()
            self._connected = self._chance.choice(nodes) if nodes else None
        return self._connected

    # ---- operations ----------------------------------------------------------------------------------------

    def _put(self) -> None:
        lease = self._lease.id if self._lease is not None and self._chance.random() < 0.4 else 0
        if self._sequences_chance.random() < self._sequences and self._knows_sequences():
            operation = self._begin(Kind.SEQUENTIAL, key=SEQUENCE, value=self._value(), lease=lease)
            sequential = holdfast_pb2.PutSequentialRequest(prefix=SEQUENCE, value=operation.value, lease=lease)
            self._send(operation, raft_pb2.Command(put_sequential=sequential))
            return
        operation = self._begin(Kind.PUT, key=self._key(), value=self._value(), lease=lease)
        put = rpc_pb2.PutRequest(key=operation.key, value=operation.value, lease=lease, prev_kv=True)
        self._send(operation, raft_pb2.Command(put=put))

    def _knows_sequences(self) -> bool:
        """Whether the cluster's level has them: a member that is asked for one proposes it only then."""
        return any(node.core is not None and node.core.machine.level >= 2 for node in self._ledger.nodes())

    def _delete(self) -> None:
        one = self._chance.random() < 0.7
        key, end = (self._key(), None) if one else SPAN
        operation = self._begin(Kind.DELETE, key=key, end=key + b"\x00" if end is None else end)
        request = rpc_pb2.DeleteRangeRequest(key=key, range_end=end or b"", prev_kv=True)
        self._send(operation, raft_pb2.Command(delete_range=request))

    def _cas(self) -> None:
        key = self._key()
        operation = self._begin(Kind.CAS, key=key, value=self._value(), expect=self._seen.get(key, 0))
        self._send(operation, raft_pb2.Command(txn=_compare_and_put(operation)))

    def _get(self) -> None:
        operation = self._begin(Kind.GET, key=SPAN[0], end=SPAN[1])
        self._send_read(operation)

    def _get_stale(self) -> None:
        """A serializable read, or a read at an old revision: answered at once, from the member's own state."""
        node = self._node()
        if node is None or node.core is None or node.paused or not node.core.machine.members:
            return
        space = node.core.machine.space
        revision = space.revision
        if self._chance.random() < 0.4:
            revision -= self._chance.randrange(20)
            if revision < max(space.compacted, 2):
                return
            self._world.sometimes("read of the past")
        request = rpc_pb2.RangeRequest(key=SPAN[0], range_end=SPAN[1], revision=revision)
        try:
            answer = requests.range_now(space, request)
        except StateDamaged:
            return  # an error, not an answer
        seen = [kv.SerializeToString() for kv in answer.kvs]
        self._ledger.oracle.check_range(f"a serializable read of {node.id:x}", *SPAN, revision, seen)

    def _compact(self) -> None:
        revision = self._ledger.oracle.revision - 5 - self._chance.randrange(20)
        operation = self._begin(Kind.COMPACT)
        compact = rpc_pb2.CompactionRequest(revision=max(revision, 1))
        self._send(operation, raft_pb2.Command(compact=compact))

    def _use_lease(self) -> None:
        lease = self._lease
        if lease is None:
            self._grant(2 + self._chance.randrange(5))
        elif self._chance.random() < 0.15:
            lease.revoking = True
            self._lease = None
            operation = self._begin(Kind.REVOKE, lease=lease.id)
            self._send(operation, raft_pb2.Command(lease_revoke=raft_pb2.LeaseRevoke(id=lease.id)))
        elif self._chance.random() < 0.15:
            self._lease = None  # let it expire
            self._later()
        else:
            self._keep_alive(lease.id)

    def _grant(self, ttl: int) -> None:
        id = 0x1000 * (self._number + 1) + self._ledger.next_id()
        operation = self._begin(Kind.GRANT, lease=id)
        self._ledger.history.append(
            Operation(self._ledger.next_id(), Kind.EXPIRE, lease=id, invoked=self._world.now, outcome=Outcome.UNKNOWN)
        )
        operation.result = ttl
        grant = raft_pb2.LeaseGrant(id=id, ttl_seconds=ttl)
        self._send(operation, raft_pb2.Command(lease_grant=grant))

    def _open_session(self) -> None:
        self._grant(SESSION_TTL)

    def _keep_alive(self, lease: int) -> None:
        operation = self._begin(Kind.KEEP_ALIVE, lease=lease)
        node = self._node()
        if node is None or node.core is None:
            self._finish(operation, Outcome.REFUSED)
            return
        id = self._ledger.next_id()

        def answered(node: Node, answer: Answer) -> None:
            self._renewed(operation, answer)

        self._ledger.ask(node, KeepAlive(id, lease, False, self._deadline(node)), answered)
        self._give_up_later(id, operation)

    def _renewed(self, operation: Operation, answer: Answer) -> None:
        lease = self._ledger.leases[operation.lease]
        if answer.error is None and answer.ttl > 0:
            lease.renewed_at = max(lease.renewed_at, operation.invoked)
            if lease.id == self._session:
                self._session_renew_at = self._world.now + SESSION_TTL * SECOND // 3
        elif answer.error is None:
            self._forget_lease(lease.id)
        self._finish(operation, Outcome.DONE if answer.error is None else Outcome.UNKNOWN)

    def _forget_lease(self, lease: int) -> None:
        if lease == self._session:
            self._session = 0
            self._world.sometimes("client session ended")
        if self._lease is not None and self._lease.id == lease:
            self._lease = None

    def _take_lock(self) -> None:
        """A key made under a lease; its revision is the fencing token."""
        if self._lease is None:
            self._grant(2 + self._chance.randrange(5))
            return
        operation = self._begin(Kind.CAS, key=LOCK, value=self._value(), lease=self._lease.id)
        operation.expect = 0
        self._send(operation, raft_pb2.Command(txn=_compare_and_put(operation)))

    def _holds_lock(self, token: int, invoked: int) -> None:
        """The resource that the lock protects refuses a token older than one that it has seen (I13)."""
        ledger = self._ledger
        check(token != ledger.token, "I13", f"fencing token {token} was given twice")
        if token > ledger.token:
            ledger.token = token
            self._world.sometimes("lock taken")
        else:
            self._world.sometimes("late holder fenced off")
            late = [o for o in ledger.history if o.key == LOCK and o.revision == ledger.token]
            check(
                not late or late[0].returned >= invoked,
                "I13",
                f"token {token} was given after {ledger.token} had been acknowledged",
            )
        self._world.at(self._world.now + token * 37 % LONGEST_USE_MS * MS, self._shows, token)

    def _shows(self, token: int) -> None:
        """The holder uses what the lock protects, perhaps after its lease has ended and others have held the lock."""
        if token < self._ledger.token:
            self._world.sometimes("late holder fenced off")

    # ---- the way out and back ------------------------------------------------------------------------------

    def _deadline(self, node: Node) -> int:
        return node.clock.local(self._world.now) + PATIENCE_NS

    def _send(self, operation: Operation, command: raft_pb2.Command, tries: int = 0) -> None:
        if self._session and operation.kind is not Kind.GRANT:
            self._session_seq += not tries
            command.session, command.session_seq = self._session, self._session_seq
            command.session_low = self._session_seq
        operation.request = command
        self._attempt(operation, tries)

    def _attempt(self, operation: Operation, tries: int) -> None:
        node = self._node()
        if node is None or node.core is None:
            # The node is down: the request was not sent. That says nothing about the outcome of earlier attempts.
            if tries:
                self._again(operation, tries)
            else:
                self._finish(operation, Outcome.REFUSED)
            return
        command = raft_pb2.Command()
        command.CopyFrom(operation.request)
        id, known = self._ledger.next_id(), self._ledger.oracle.revision

        def answered(node: Node, answer: Answer) -> None:
            if tries and isinstance(answer.response, rpc_pb2.PutResponse) and answer.revision <= known:
                self._world.sometimes("first answer given again")
            self._answered(operation, answer, tries)

        self._ledger.ask(node, Propose(id, command, self._deadline(node)), answered)
        self._give_up_later(id, operation)

    def _again(self, operation: Operation, tries: int) -> None:
        """The outcome is unknown. With a session the same command may be sent again, to another member."""
        self._connected = None
        if operation.request is not None and operation.request.session and tries < 4:
            self._world.sometimes("command sent again under its session")
            self._world.at(self._world.now + 100 * MS, self._attempt, operation, tries + 1)
        else:
            self._finish(operation, Outcome.UNKNOWN)

    def _send_read(self, operation: Operation) -> None:
        node = self._node()
        if node is None or node.core is None:
            self._finish(operation, Outcome.REFUSED)
            return
        id = self._ledger.next_id()

        def answered(node: Node, answer: Answer) -> None:
            if answer.error is not None or node.core is None:
                self._finish(operation, Outcome.REFUSED)
            else:
                self._read(operation, node.core)

        self._ledger.ask(node, Read(id, self._deadline(node)), answered)
        self._give_up_later(id, operation)

    def _give_up_later(self, id: int, operation: Operation) -> None:
        self._world.at(self._world.now + GIVE_UP_NS, self._give_up, id, operation)

    def _give_up(self, id: int, operation: Operation) -> None:
        if self._ledger.drop(id) and operation.outcome is Outcome.OPEN:
            self._again(operation, 99)

    def _read(self, operation: Operation, core: MemberCore) -> None:
        space = core.machine.space
        try:
            answer = requests.range_now(space, rpc_pb2.RangeRequest(key=operation.key, range_end=operation.end or b""))
        except StateDamaged:
            self._finish(operation, Outcome.REFUSED)
            return
        operation.revision = space.revision
        operation.result = [_versioned(kv) for kv in answer.kvs]
        self._seen = {kv.key: kv.mod_revision for kv in answer.kvs}
        self._finish(operation, Outcome.DONE)

    def _answered(self, operation: Operation, answer: Answer, tries: int) -> None:
        error = answer.error
        if error is not None:
            self._failed(operation, error, tries)
            return
        operation.revision = answer.revision
        response = answer.response
        if isinstance(response, rpc_pb2.PutResponse):
            operation.result = _version(response.prev_kv) if response.HasField("prev_kv") else None
        elif isinstance(response, holdfast_pb2.PutSequentialResponse):
            operation.result = response.key
            self._world.sometimes("key made in sequence")
        elif isinstance(response, rpc_pb2.DeleteRangeResponse):
            operation.result = [_versioned(kv) for kv in response.prev_kvs]
            check(response.deleted == len(response.prev_kvs), "I10", f"{operation!r}: deleted {response.deleted}")
        elif isinstance(response, rpc_pb2.TxnResponse):
            self._txn_answered(operation, response)
        elif isinstance(response, rpc_pb2.LeaseGrantResponse):
            self._granted(operation, response)
        self._finish(operation, Outcome.DONE)
        if self._misuse and operation.request is not None and operation.request.session:
            self._use_number_again(operation.request)

    def _use_number_again(self, done: raft_pb2.Command) -> None:
        """Send a new command with the number of a finished one: it must not be applied, nor get the old answer."""
        nodes = self._ledger.nodes()
        if not nodes or self._misuse_chance.random() >= self._misuse:
            return
        node = self._misuse_chance.choice(nodes)
        command = raft_pb2.Command(put=rpc_pb2.PutRequest(key=b"x/misused", value=b"%d" % self._number))
        command.session, command.session_seq = done.session, done.session_seq
        command.session_low = done.session_low

        def answered(node: Node, answer: Answer) -> None:
            what = f"number {done.session_seq} of session {done.session:x} was used for two commands, and both answered"
            check(answer.error is not None, "I14", what)
            if answer.error == SESSION_OTHER_COMMAND:
                self._world.sometimes("number of a session used twice")

        self._ledger.ask(node, Propose(self._ledger.next_id(), command, self._deadline(node)), answered)

    def _txn_answered(self, operation: Operation, response: rpc_pb2.TxnResponse) -> None:
        if response.succeeded:
            operation.result = (True, None)
            if operation.key == LOCK:
                self._holds_lock(operation.revision, operation.invoked)
            return
        found = response.responses[0].response_range.kvs
        operation.result = (False, _version(found[0]) if found else None)
        if found:
            self._seen[operation.key] = found[0].mod_revision

    def _granted(self, operation: Operation, response: rpc_pb2.LeaseGrantResponse) -> None:
        lease = Lease(response.ID, response.TTL, operation.invoked)
        self._ledger.leases[lease.id] = lease
        if response.TTL == SESSION_TTL:
            self._session, self._session_seq = lease.id, 0
            self._session_renew_at = self._world.now + SESSION_TTL * SECOND // 3
            self._world.sometimes("client session opened")
        else:
            self._lease = lease

    def _failed(self, operation: Operation, error: Refusal, tries: int) -> None:
        # It was refused before it was proposed, which says nothing about earlier attempts.
        if error in _UNKNOWN or (tries and error not in (*_BY_THE_MACHINE, SESSION_ENDED, SESSION_FORGOTTEN)):
            self._again(operation, tries)
            return
        if error in (SESSION_ENDED, SESSION_FORGOTTEN):
            check(error == SESSION_ENDED, "I14", f"{operation!r}: {error.message}")
            self._session = 0
            self._finish(operation, Outcome.UNKNOWN if tries else Outcome.REFUSED)
            return
        if operation.lease and operation.kind in (Kind.PUT, Kind.SEQUENTIAL, Kind.CAS):
            self._forget_lease(operation.lease)
        self._finish(operation, Outcome.REFUSED)

    def _finish(self, operation: Operation, outcome: Outcome) -> None:
        if operation.outcome is not Outcome.OPEN:
            return
        operation.outcome = outcome
        if outcome is Outcome.DONE:
            operation.returned = self._world.now
        else:
            operation.returned = NEVER
            self._world.sometimes(f"operation {outcome.value}")
        self._world.note(f"client {self._number}: {operation!r}")
        self._later()


def _compare_and_put(operation: Operation) -> rpc_pb2.TxnRequest:
    """Write the key if it has the expected mod revision, else read it."""
    request = rpc_pb2.TxnRequest()
    compare = request.compare.add(key=operation.key, mod_revision=operation.expect)
    compare.target, compare.result = rpc_pb2.Compare.MOD, rpc_pb2.Compare.EQUAL
    put = rpc_pb2.PutRequest(key=operation.key, value=operation.value, lease=operation.lease)
    request.success.add(request_put=put)
    request.failure.add(request_range=rpc_pb2.RangeRequest(key=operation.key))
    return request


def _version(kv: kv_pb2.KeyValue) -> Version:
    return kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease


def _versioned(kv: kv_pb2.KeyValue) -> tuple[bytes, bytes, int, int, int, int]:
    return kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease
