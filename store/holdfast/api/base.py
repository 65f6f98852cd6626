"""What all services share: access to the node, response headers, identity checks, proposals and reads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message

from holdfast.api.identity import Caller, Identities
from holdfast.api.router import Router
from holdfast.api.tokens import SimpleTokens
from holdfast.api.versions import Versions
from holdfast.auth.store import Principal
from holdfast.front.calls import Call
from holdfast.kv.store import StateDamaged
from holdfast.machine.client_sessions import may_be_named
from holdfast.member.driver import Answered, Member
from holdfast.member.interface import Answer
from holdfast.member.node import Node, State
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.invariant import InvariantViolation
from holdfast.served.scans import S
from holdfast.status import (
    LEARNER_UNSUPPORTED,
    NO_LEADER,
    NO_STATE,
    NOT_A_MEMBER,
    NOT_RECOVERED,
    REQUEST_TOO_LARGE,
    STATE_DAMAGED,
    Code,
    Refusal,
    RequestError,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of requests and of the data; the defaults are etcd's."""

    request_bytes: int = 1_572_864
    txn_ops: int = 128
    quota_bytes: int = 2 << 30  # of the state on disk; negative: no limit


@dataclass(frozen=True, slots=True)
class Serving:
    """The objects that all services use."""

    router: Router
    node: Node
    identities: Identities = field(default_factory=lambda: Identities(SimpleTokens(), trust_common_names=False))
    limits: Limits = field(default_factory=Limits)
    versions: Versions = field(default_factory=Versions)


log = logging.getLogger("holdfast.api")

SESSION = "holdfast-session"
_FAILED = Refusal(Code.INTERNAL, "holdfast: an unexpected error; see the server's log")


class Service:
    """Base class of the services."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.router = serving.router
        self.node = serving.node

    def member(self, call: Call, *, learner: bool = False) -> Member:
        """The member that serves this call. Raises RequestError if there is none yet, if it is a learner (unless
        `learner`), or if the call requires a leader and there is none."""
        member = self.node.member
        if member is None or self.node.state is not State.MEMBER:
            raise RequestError(NOT_A_MEMBER)
        if not member.state.members:
            raise RequestError(NO_STATE)  # a state not received yet must not look like "not found"
        if not self.node.serving:
            raise RequestError(NOT_RECOVERED)
        if not learner and member.is_learner:
            raise RequestError(LEARNER_UNSUPPORTED)
        if call.metadata.get("hasleader") == "true" and not member.raft.leader:
            raise RequestError(NO_LEADER)
        return member

    def header(self, member: Member, revision: int | None = None) -> rpc_pb2.ResponseHeader:
        return rpc_pb2.ResponseHeader(
            cluster_id=self.node.data.identity.cluster_id,
            member_id=member.id,
            revision=member.revision if revision is None else revision,
            raft_term=member.raft.term,
        )

    def answer(self, call: Call, member: Member, response: Message, revision: int | None = None) -> None:
        """Fill in the header of `response` and send it."""
        response.header.CopyFrom(self.header(member, revision))  # type: ignore[attr-defined]
        self.router.reply(call.id, response.SerializeToString())

    def principal(self, call: Call, member: Member) -> Principal:
        """The authenticated user of the call. Raises RequestError if its token is invalid."""
        return self.serving.identities.principal(call, member.state.auth)

    def caller(self, call: Call, member: Member) -> Caller:
        """The caller of the stream `call`, whose rights can be checked again while it is open."""
        return Caller(self.serving.identities, call, lambda: member.state.auth)

    def require_user(self, call: Call, member: Member) -> None:
        """Raise RequestError unless auth is off or the call is authenticated."""
        member.state.auth.require_current(self.principal(call, member))

    def require_admin(self, call: Call, member: Member) -> None:
        """Raise RequestError unless auth is off or the caller has role root."""
        member.state.auth.require_admin(self.principal(call, member))

    def guard(self, call: Call, work: Callable[[], None]) -> None:
        """Run `work`, which was deferred; fail the call if it raises RequestError or StateDamaged."""
        try:
            work()
        except RequestError as error:
            self.router.fail(call.id, error.refusal)
        except StateDamaged:
            self.router.fail(call.id, STATE_DAMAGED)
        except InvariantViolation:
            raise
        except Exception:  # as in a call that is served at once: it ends this call, and not the server
            log.exception("%s failed", call.method)
            self.router.fail(call.id, _FAILED)

    def propose(
        self, call: Call, member: Member, command: raft_pb2.Command, answered: Answered, *, cost: int = 0
    ) -> None:
        """Propose `command` on behalf of the caller, under the client session that the call names, if any. `cost`: how
        many rows applying it takes, at most. It is not cancelled when the client gives up, because it may already be in
        the log; but it is withdrawn if it still waits for its turn."""
        state = member.state
        if state.auth.enabled:
            who = self.principal(call, member)
            command.principal, command.auth_revision, command.via = who.user, who.revision, ",".join(who.via)
            state.check_rights(command, who.via)
        if SESSION in call.metadata:
            name_command(command, call)
            if state.level >= 2 and state.auth.enabled:
                state.clients.check_owner(command.session, state.clients.owner_of(command))
        self.submit(call, member, command, answered, cost=cost)

    def submit(
        self, call: Call, member: Member, command: raft_pb2.Command, answered: Answered, *, cost: int = 0
    ) -> None:
        """Propose a command that needs no rights of its caller, or has its principal already."""

        def applied(answer: Answer) -> None:
            self.router.mark(call, "applied here", member.core.name(answer.seq))
            answered(answer)

        withdraw = member.propose(command, applied, call.deadline_ns, cost=cost, owner=call.peer.address)
        if cost:
            self.router.on_cancel(call, withdraw)

    def propose_and_answer(self, call: Call, member: Member, command: raft_pb2.Command, *, cost: int = 0) -> None:
        """Propose `command`, and answer with the state machine's response."""
        self.propose(call, member, command, self.answering(call, member), cost=cost)

    def answering(self, call: Call, member: Member) -> Answered:
        """Answers the call with the state machine's response."""

        def answered(answer: Answer) -> None:
            if not self.refuse(call, answer):
                assert answer.response is not None
                self.answer(call, member, answer.response, answer.revision)

        return answered

    def in_slices(self, call: Call, member: Member, begin: Callable[[], S], done: Callable[[S], None]) -> None:
        """Do work on many rows, in turns with other connections; then call `done`. The call fails if the work does, or
        if `done` raises."""
        cancel = member.in_slices(
            begin,
            lambda work: self.guard(call, lambda: done(work)),
            lambda error: self.router.fail(call.id, error),
            owner=call.peer.address,
            outbox=call.peer.outbox,
        )
        self.router.on_cancel(call, cancel)

    def when_current(self, call: Call, member: Member, work: Callable[[], None]) -> None:
        """Run `work` once everything acknowledged so far is applied here. The call fails if that cannot be confirmed,
        or if `work` raises."""

        def confirmed(answer: Answer) -> None:
            if not self.refuse(call, answer):
                self.router.mark(call, "the leader was confirmed")
                self.guard(call, work)

        id = member.read(confirmed, call.deadline_ns)
        self.router.on_cancel(call, lambda: member.cancel(id))

    def check_size(self, body: bytes) -> None:
        if len(body) > self.serving.limits.request_bytes:
            raise RequestError(REQUEST_TOO_LARGE)

    def refuse(self, call: Call, answer: Answer) -> bool:
        """Fail the call if the answer is an error."""
        if answer.error is None:
            return False
        self.router.fail(call.id, answer.error)
        return True


def name_command(command: raft_pb2.Command, call: Call) -> None:
    """Set the client session's name of `command` from the metadata. Raises RequestError if the metadata is invalid or
    this kind of command cannot be named."""
    if not may_be_named(command.WhichOneof("op")):
        raise RequestError(
            Refusal(
                Code.INVALID_ARGUMENT,
                "holdfast: only a put, delete, transaction, compaction, or the grant or end of a lease can be a "
                "session's command; send it without holdfast-session",
            )
        )
    try:
        session, seq, low = (int(call.metadata[key]) for key in (SESSION, "holdfast-seq", "holdfast-low"))
        command.session, command.session_seq, command.session_low = session, seq, low
    except (KeyError, ValueError) as error:
        raise RequestError(
            Refusal(
                Code.INVALID_ARGUMENT,
                "holdfast: a command of a session names it by three numbers: holdfast-session, holdfast-seq, "
                "holdfast-low",
            )
        ) from error
    if not (session and 0 < low <= seq):
        raise RequestError(
            Refusal(Code.INVALID_ARGUMENT, f"holdfast: a session's command has 0 < low <= seq, not {low}, {seq}")
        )
