"""The errors of requests: a gRPC code and etcd's exact text, which clients match.

Every error that some code distinguishes is a constant here, which servers raise and clients recognise. No text is
written twice.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple


class Code(IntEnum):
    """gRPC status codes, independent of any gRPC library."""

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


# Go's names of the codes, used in metrics and some error texts.
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


class Refusal(NamedTuple):
    """The error of a refused request, as sent over the wire and stored in the row of a kept answer. Two with the same
    code and text are equal."""

    code: Code
    message: str

    def in_go_words(self) -> str:
        """The error as printed by grpc-go. etcd sends this as the reason why a watch was refused, and clients match
        it."""
        return f"rpc error: code = {GO_NAMES[self.code]} desc = {self.message}"


class RefusalTemplate(NamedTuple):
    """A refusal whose text has `{fields}`, which `fill` replaces. Texts have no other braces."""

    code: Code
    template: str

    def fill(self, **fields: str) -> Refusal:
        return Refusal(self.code, self.template.format(**fields))

    def matches(self, message: str) -> bool:
        """Whether `message` may be this template, filled in."""
        first, *others = _FIELD.split(self.template)
        if not message.startswith(first):
            return False
        at = len(first)
        for part in others:
            at = message.find(part, at)
            if at < 0:
                return False
            at += len(part)
        return True


Known = Refusal | RefusalTemplate


class RequestError(Exception):
    """A request is refused; `refusal` tells the client why. It never indicates a fault of the server.

    Create a new one for each `raise` and do not keep it: its traceback references every frame it passed. Keep, compare
    or send the refusal instead.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal

    def __repr__(self) -> str:
        return f"RequestError({self.refusal.code.name}, {self.refusal.message!r})"


_FIELD = re.compile(r"\{\w+\}")
_GO_WORDS = re.compile(r"^rpc error: code = \w+ desc = ")
_ETCD, _OURS = "etcdserver: ", "holdfast: "


def _etcd(code: Code, text: str) -> Refusal:
    return Refusal(code, _ETCD + text)


def _ours(code: Code, text: str) -> Refusal:
    return Refusal(code, _OURS + text)


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
NOT_VOTER = _ours(Code.FAILED_PRECONDITION, "can only demote a voting member")
LEARNER_NOT_READY = _etcd(Code.FAILED_PRECONDITION, "can only promote a learner member which is in sync with leader")
TOO_MANY_LEARNERS = _etcd(Code.FAILED_PRECONDITION, "too many learner members in cluster")
NOT_ENOUGH_STARTED = _etcd(Code.FAILED_PRECONDITION, "re-configuration failed due to not enough started members")
NOT_LEADER = _etcd(Code.FAILED_PRECONDITION, "not leader")
BAD_TRANSFEREE = _etcd(Code.FAILED_PRECONDITION, "bad leader transferee")
LEARNER_UNSUPPORTED = _etcd(Code.FAILED_PRECONDITION, "rpc not supported for learner")
NO_LEADER = _etcd(Code.UNAVAILABLE, "no leader")
LEADER_CHANGED = _etcd(Code.UNAVAILABLE, "leader changed")
STATE_DAMAGED = _ours(Code.DATA_LOSS, "the state of this server is damaged, and it stops; ask another one")
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
PASSWORD_TOO_LONG = _ours(Code.INVALID_ARGUMENT, "a password has at most 72 bytes")
BAD_HASH = _ours(Code.INVALID_ARGUMENT, "hashedPassword is not base64 of a bcrypt hash")
# In etcd this error has no code and no prefix.
NO_PASSWORD_USER = Refusal(Code.UNKNOWN, "auth: authentication failed, password was given for no password user")

BAD_DOWNGRADE_VERSION = _etcd(Code.INVALID_ARGUMENT, "wrong downgrade target version format")
BAD_DOWNGRADE_TARGET = _etcd(Code.INVALID_ARGUMENT, "invalid downgrade target version")
NO_DOWNGRADE = _etcd(Code.FAILED_PRECONDITION, "no inflight downgrade job")

INTERNAL_ERROR = _ours(Code.INTERNAL, "internal error; see the server's log")
CONF_MOVED = _ours(Code.FAILED_PRECONDITION, "the membership has changed since it was read; read it again")
SESSION_ENDED = _ours(
    Code.NOT_FOUND,
    "this client session has ended (its lease expired or was revoked): whether earlier commands of it whose "
    "answers were lost took effect cannot be told any more; open another session",
)
LOCK_DELAY_UNSUPPORTED = _ours(
    Code.FAILED_PRECONDITION,
    "lock-delays begin with cluster version 0.2: upgrade all members, or open the session without",
)
SEQUENCES_UNSUPPORTED = _ours(
    Code.FAILED_PRECONDITION,
    "PutSequential begins with cluster version 0.2: upgrade all members",
)
CACHES_UNSUPPORTED = _ours(
    Code.FAILED_PRECONDITION,
    "cachable prefixes begin with cluster version 0.2: upgrade all members",
)
NOT_CACHABLE = _ours(
    Code.FAILED_PRECONDITION,
    "these keys are not within one cachable prefix (see holdfast cache --help)",
)
CACHE_FORBIDDEN = _ours(Code.FAILED_PRECONDITION, "the prefix of this cache lease was forbidden")
CACHE_IDLE = _ours(
    Code.FAILED_PRECONDITION,
    "this holder of a cache lease has not renewed it, and others want one; ask again",
)
CACHE_AT_REPLICA = _ours(
    Code.FAILED_PRECONDITION,
    "a replica gives no cache leases, and what it serves may be stale; connect to the members",
)
CACHE_UNACKNOWLEDGED = _ours(
    Code.FAILED_PRECONDITION,
    "this cache lease ended before its holder acknowledged an invalidation; a write waited for it",
)
SESSION_FORGOTTEN = _ours(
    Code.FAILED_PRECONDITION,
    "the answer to this command of the session is not kept any more: it was answered, or given up, before",
)
SESSION_FOREIGN = _ours(
    Code.PERMISSION_DENIED,
    "this client session belongs to another user; open another session. Nothing was done",
)
SESSION_OTHER_COMMAND = _ours(
    Code.FAILED_PRECONDITION,
    "this number of the client session named another command before; open another session. Nothing was done",
)
NO_SPACE = _etcd(Code.RESOURCE_EXHAUSTED, "mvcc: database space exceeded")
CONF_PENDING = _ours(Code.UNAVAILABLE, "another change of membership is not yet committed; try again")

# Errors of a node or member that cannot serve (yet).
NOT_A_MEMBER = _ours(Code.UNAVAILABLE, "this node does not belong to a cluster yet; try another one")
NO_STATE = _ours(Code.UNAVAILABLE, "this member waits for its first snapshot; try another one")
NOT_RECOVERED = _ours(
    Code.UNAVAILABLE,
    "this member waits for its first word from a leader since it was started: until then it cannot tell whether it has "
    "all that it served before; try another one",
)

# Errors of calls that come through edge replicas.
REPLICA_DENIED = RefusalTemplate(
    Code.PERMISSION_DENIED,
    _OURS + "permission denied: the call comes through an edge replica whose user {user} may not {do} {key}; give that "
    "user the right, too, or call with a token",
)
NO_ADMIN_THROUGH_REPLICA = _ours(
    Code.PERMISSION_DENIED,
    "permission denied: through an edge replica nobody administers the cluster by a certificate; call with a token, or "
    "at a member",
)

# Errors of an edge replica.
REPLICA_EMPTY = RefusalTemplate(
    Code.UNAVAILABLE,
    _OURS + "replica {name} has no data of these prefixes yet; it must reach the cluster once",
)
REPLICA_DISCONNECTED = RefusalTemplate(
    Code.UNAVAILABLE,
    _OURS + "replica {name} is disconnected from its cluster: only serializable reads and watches of {prefixes} are "
    "answered here",
)
WRITER_UNREACHABLE = RefusalTemplate(
    Code.UNAVAILABLE,
    _OURS + "replica {name} does not reach {writer} at {address}, which writes the keys of the site {site}: only "
    "serializable reads and watches of them are answered here",
)
NOT_OF_SITE = RefusalTemplate(
    Code.FAILED_PRECONDITION,
    _OURS + "this server is no replica of the site {site}, so it does not have the keys of that site. Name replicas "
    "that were started with --site={site}, and no other servers",
)
NOT_SERVED_OFFLINE = RefusalTemplate(
    Code.UNAVAILABLE,
    _OURS + "replica {name} {why}, and {prefix} is not served then",
)
REPLICA_TOO_OLD = RefusalTemplate(
    Code.UNAVAILABLE,
    _OURS + "replica {name} {has}, and {wanted} was asked for",
)
OUTSIDE_PREFIXES = RefusalTemplate(
    Code.FAILED_PRECONDITION,
    _OURS + "{key} is outside this replica's prefixes ({prefixes}). Read it from the cluster, or add its prefix to the "
    "replica's pool",
)

# ---- recognising errors --------------------------------------------------------------------------------------------

# The trailing metadata in which a server sends the name of one of the constants above. etcd and members of version 0.1
# send none: their errors are recognised by code and text.
NAME_METADATA = "holdfast-error"
# In the metadata of a read: how fresh the answer has to be (see `api.read_modes`).
READ_METADATA = "holdfast-read"
# In the metadata of a request about keys of a site: its name. A server that is not of this site refuses the request.
SITE_METADATA = "holdfast-site"
# In the headers of its answer, with READ_METADATA: what the data has all up to, and how old it can be.
POSITION_METADATA, BOUND_METADATA = "holdfast-position", "holdfast-bound"

_BY_NAME: dict[str, Known] = {name: value for name, value in globals().items() if isinstance(value, Known)}
_NAMES = {value: name for name, value in _BY_NAME.items()}
# Some refusals are sent between members as text only.
BY_TEXT = {value.message: value for value in _BY_NAME.values() if isinstance(value, Refusal)}
_TEMPLATES = [value for value in _BY_NAME.values() if isinstance(value, RefusalTemplate)]


def known(code: int, message: str, name: str = "") -> Known | None:
    """The constant that a server sent, by its `name` if that is known here, else by code and text. None if unknown."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    found = _by_text(message)
    return found if found is not None and found.code == code else None


def known_reason(reason: str) -> Known | None:
    """The constant for the reason why a watch was cancelled: its text, or the result of `in_go_words`."""
    return _by_text(without_go_words(reason))


def without_go_words(reason: str) -> str:
    """The text of a refusal, from the result of `in_go_words`; another text as it is."""
    return _GO_WORDS.sub("", reason)


def _by_text(message: str) -> Known | None:
    return BY_TEXT.get(message) or next((template for template in _TEMPLATES if template.matches(message)), None)


def name_of(code: int, message: str) -> str:
    """The name to send with a refusal; empty if it is none of the constants above."""
    found = known(code, message)
    return "" if found is None else _NAMES[found]


def said_by_server(message: str) -> bool:
    """Whether an etcd or holdfast server wrote this text, and not a gRPC library about its connection."""
    return message.startswith((_ETCD, _OURS))


def for_people(message: str) -> str:
    """The text of a refusal for users, without the prefix that names the program."""
    return message.removeprefix(_ETCD).removeprefix(_OURS)
