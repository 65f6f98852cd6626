"""How a request is refused: a gRPC code and etcd's exact text, which clients match on."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Code(IntEnum):
    """gRPC status codes, as numbers of the protocol and free of any gRPC library."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# As Go prints them; metrics and some error texts carry these.
GO_NAMES = {
    Code.CANCELLED: "Canceled",
    Code.UNKNOWN: "Unknown",
    Code.INVALID_ARGUMENT: "InvalidArgument",
    Code.DEADLINE_EXCEEDED: "DeadlineExceeded",
    Code.NOT_FOUND: "NotFound",
    Code.ALREADY_EXISTS: "AlreadyExists",
    Code.PERMISSION_DENIED: "PermissionDenied",
    Code.RESOURCE_EXHAUSTED: "ResourceExhausted",
    Code.FAILED_PRECONDITION: "FailedPrecondition",
    Code.ABORTED: "Aborted",
    Code.OUT_OF_RANGE: "OutOfRange",
    Code.UNIMPLEMENTED: "Unimplemented",
    Code.INTERNAL: "Internal",
    Code.UNAVAILABLE: "Unavailable",
    Code.DATA_LOSS: "DataLoss",
    Code.UNAUTHENTICATED: "Unauthenticated",
}


class RequestError(Exception):
    """A request cannot be done; says why to the one who asked. Never a sign of a broken server."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def caught(self) -> Self:
        """To be called by whoever catches it: most errors here are made once and raised often, and Python adds to the
        traceback of a raised object each time, with every frame and all that the frames hold."""
        self.__traceback__ = self.__context__ = None
        return self

    def in_go_words(self) -> str:
        """As grpc-go prints an error: etcd sends it as the reason why a watch was refused, and clients look for it."""
        return f"rpc error: code = {GO_NAMES[self.code]} desc = {self.message}"

    def __repr__(self) -> str:
        return f"RequestError({self.code.name}, {self.message!r})"


def _etcd(code: Code, text: str) -> RequestError:
    return RequestError(code, f"etcdserver: {text}")


EMPTY_KEY = _etcd(Code.INVALID_ARGUMENT, "key is not provided")
KEY_NOT_FOUND = _etcd(Code.INVALID_ARGUMENT, "key not found")
VALUE_PROVIDED = _etcd(Code.INVALID_ARGUMENT, "value is provided")
LEASE_PROVIDED = _etcd(Code.INVALID_ARGUMENT, "lease is provided")
TOO_MANY_OPS = _etcd(Code.INVALID_ARGUMENT, "too many operations in txn request")
DUPLICATE_KEY = _etcd(Code.INVALID_ARGUMENT, "duplicate key given in txn request")
INVALID_SORT = _etcd(Code.INVALID_ARGUMENT, "invalid sort option")
REQUEST_TOO_LARGE = _etcd(Code.INVALID_ARGUMENT, "request is too large")
BAD_URLS = _etcd(Code.INVALID_ARGUMENT, "given member URLs are invalid")
COMPACTED = _etcd(Code.OUT_OF_RANGE, "mvcc: required revision has been compacted")
FUTURE_REVISION = _etcd(Code.OUT_OF_RANGE, "mvcc: required revision is a future revision")
TTL_TOO_LARGE = _etcd(Code.OUT_OF_RANGE, "too large lease TTL")
TOO_MANY_REQUESTS = _etcd(Code.RESOURCE_EXHAUSTED, "too many requests")
LEASE_NOT_FOUND = _etcd(Code.NOT_FOUND, "requested lease not found")
MEMBER_NOT_FOUND = _etcd(Code.NOT_FOUND, "member not found")
LEASE_EXISTS = _etcd(Code.FAILED_PRECONDITION, "lease already exists")
MEMBER_EXISTS = _etcd(Code.FAILED_PRECONDITION, "member ID already exist")
PEER_URL_EXISTS = _etcd(Code.FAILED_PRECONDITION, "Peer URLs already exists")
NOT_LEARNER = _etcd(Code.FAILED_PRECONDITION, "can only promote a learner member")
NOT_VOTER = RequestError(Code.FAILED_PRECONDITION, "holdfast: can only demote a voting member")
LEARNER_NOT_READY = _etcd(Code.FAILED_PRECONDITION, "can only promote a learner member which is in sync with leader")
TOO_MANY_LEARNERS = _etcd(Code.FAILED_PRECONDITION, "too many learner members in cluster")
NOT_ENOUGH_STARTED = _etcd(Code.FAILED_PRECONDITION, "re-configuration failed due to not enough started members")
NOT_LEADER = _etcd(Code.FAILED_PRECONDITION, "not leader")
BAD_TRANSFEREE = _etcd(Code.FAILED_PRECONDITION, "bad leader transferee")
LEARNER_UNSUPPORTED = _etcd(Code.FAILED_PRECONDITION, "rpc not supported for learner")
NO_LEADER = _etcd(Code.UNAVAILABLE, "no leader")
LEADER_CHANGED = _etcd(Code.UNAVAILABLE, "leader changed")
STATE_DAMAGED = RequestError(
    Code.DATA_LOSS, "holdfast: the state of this server is damaged, and it stops; ask another one"
)
STOPPED = _etcd(Code.UNAVAILABLE, "server stopped")
TIMEOUT = _etcd(Code.UNAVAILABLE, "request timed out")
TIMEOUT_LEADER_FAILED = _etcd(Code.UNAVAILABLE, "request timed out, possibly due to previous leader failure")
UNHEALTHY = _etcd(Code.UNAVAILABLE, "unhealthy cluster")
INVALID_API_VERSION = _etcd(Code.INVALID_ARGUMENT, "invalid client api version")
CORRUPT = _etcd(Code.DATA_LOSS, "corrupt cluster")

USER_EMPTY = _etcd(Code.INVALID_ARGUMENT, "user name is empty")
USER_EXISTS = _etcd(Code.FAILED_PRECONDITION, "user name already exists")
USER_NOT_FOUND = _etcd(Code.FAILED_PRECONDITION, "user name not found")
ROLE_EMPTY = _etcd(Code.INVALID_ARGUMENT, "role name is empty")
ROLE_EXISTS = _etcd(Code.FAILED_PRECONDITION, "role name already exists")
ROLE_NOT_FOUND = _etcd(Code.FAILED_PRECONDITION, "role name not found")
ROLE_NOT_GRANTED = _etcd(Code.FAILED_PRECONDITION, "role is not granted to the user")
PERMISSION_NOT_GIVEN = _etcd(Code.INVALID_ARGUMENT, "permission not given")
PERMISSION_NOT_GRANTED = _etcd(Code.FAILED_PRECONDITION, "permission is not granted to the role")
PERMISSION_DENIED = _etcd(Code.PERMISSION_DENIED, "permission denied")
ROOT_USER_MISSING = _etcd(Code.FAILED_PRECONDITION, "root user does not exist")
ROOT_ROLE_MISSING = _etcd(Code.FAILED_PRECONDITION, "root user does not have root role")
AUTH_FAILED = _etcd(Code.INVALID_ARGUMENT, "authentication failed, invalid user ID or password")
AUTH_NOT_ENABLED = _etcd(Code.FAILED_PRECONDITION, "authentication is not enabled")
AUTH_OLD_REVISION = _etcd(Code.INVALID_ARGUMENT, "revision of auth store is old")
INVALID_AUTH_TOKEN = _etcd(Code.UNAUTHENTICATED, "invalid auth token")
INVALID_AUTH_MANAGEMENT = _etcd(Code.INVALID_ARGUMENT, "invalid auth management")
PASSWORD_TOO_LONG = RequestError(Code.INVALID_ARGUMENT, "holdfast: a password has at most 72 bytes")
BAD_HASH = RequestError(Code.INVALID_ARGUMENT, "holdfast: hashedPassword is not base64 of a bcrypt hash")
# etcd has no code and no prefix for this one.
NO_PASSWORD_USER = RequestError(Code.UNKNOWN, "auth: authentication failed, password was given for no password user")

BAD_DOWNGRADE_VERSION = _etcd(Code.INVALID_ARGUMENT, "wrong downgrade target version format")
BAD_DOWNGRADE_TARGET = _etcd(Code.INVALID_ARGUMENT, "invalid downgrade target version")
NO_DOWNGRADE = _etcd(Code.FAILED_PRECONDITION, "no inflight downgrade job")

INTERNAL_ERROR = RequestError(Code.INTERNAL, "holdfast: internal error; see the server's log")
CONF_MOVED = RequestError(
    Code.FAILED_PRECONDITION, "holdfast: the membership has changed since it was read; read it again"
)
SESSION_ENDED = RequestError(
    Code.NOT_FOUND,
    "holdfast: this client session has ended (its lease expired or was revoked): whether earlier commands of it whose "
    "answers were lost took effect cannot be told any more; open another session",
)
SESSION_FORGOTTEN = RequestError(
    Code.FAILED_PRECONDITION,
    "holdfast: the answer to this command of the session is not kept any more: it was answered, or given up, before",
)
SESSION_FOREIGN = RequestError(
    Code.PERMISSION_DENIED,
    "holdfast: this client session belongs to another user; open another session. Nothing was done",
)
SESSION_OTHER_COMMAND = RequestError(
    Code.FAILED_PRECONDITION,
    "holdfast: this number of the client session named another command before; open another session. Nothing was done",
)
NO_SPACE = _etcd(Code.RESOURCE_EXHAUSTED, "mvcc: database space exceeded")
CONF_PENDING = RequestError(Code.UNAVAILABLE, "holdfast: another change of membership is not yet committed; try again")

# Refusals that travel between members by their text alone.
BY_TEXT = {
    e.message: e
    for e in (
        MEMBER_NOT_FOUND,
        MEMBER_EXISTS,
        PEER_URL_EXISTS,
        NOT_LEARNER,
        NOT_VOTER,
        LEARNER_NOT_READY,
        TOO_MANY_LEARNERS,
        BAD_URLS,
        DUPLICATE_KEY,
        EMPTY_KEY,
        KEY_NOT_FOUND,
        LEASE_PROVIDED,
        TOO_MANY_OPS,
        VALUE_PROVIDED,
        NOT_ENOUGH_STARTED,
        CONF_MOVED,
        CONF_PENDING,
        UNHEALTHY,
        NO_SPACE,
    )
}
