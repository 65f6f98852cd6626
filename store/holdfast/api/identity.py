"""Authenticates calls: by a token in the metadata (`api.tokens`), or by the client certificate of the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import unquote

from holdfast.api.operator import Operator
from holdfast.auth.store import NOBODY, REPLICA_ROLE, ROOT, AuthStore, Principal
from holdfast.cert_names import AMBIGUOUS, shown
from holdfast.front.calls import Call
from holdfast.status import INVALID_AUTH_TOKEN, Code, Refusal, RequestError

# Metadata that marks a forwarded call: the connection's certificate is the forwarder's, not the caller's.
FORWARDED = "holdfast-forwarded"
ON_BEHALF = "holdfast-on-behalf-of"  # the user whose certificate the forwarder has verified, percent-encoded
VIA = "holdfast-via"  # the users of the replicas below the forwarder, through which the call came, percent-encoded
FORWARDERS = frozenset((FORWARDED, ON_BEHALF, VIA))
MAX_VIA = 8  # replicas in a row


class Tokens(Protocol):
    """One kind of token."""

    def identify(self, token: str, auth: AuthStore) -> Principal | None:
        """The user of the token; None if it is invalid."""
        ...

    def issue(self, user: str, revision: int) -> str | None:
        """A new token, or None if it has to be issued through the log."""
        ...

    def ahead(self, token: str, auth: AuthStore, applied: int) -> bool:
        """Whether the token may become valid once entries after index `applied` are applied here."""
        ...

    def ends_ms(self, token: str) -> int:
        """When a valid token expires (Unix ms); 0: it lives as long as it is used."""
        ...


def _only(names: tuple[str, ...]) -> str:
    if len(names) > 1:
        text = AMBIGUOUS.format(count=len(names), names=shown(names))
        raise RequestError(Refusal(Code.UNAUTHENTICATED, f"holdfast: {text}, or a token"))
    return names[0]


def _named(encoded: str) -> str:
    """A user's name in metadata. Raises RequestError."""
    name = unquote(encoded)
    try:
        name.encode()
    except UnicodeEncodeError:
        text = f"holdfast: the metadata {ON_BEHALF} or {VIA} has a name that is not UTF-8"
        raise RequestError(Refusal(Code.INVALID_ARGUMENT, text)) from None
    return name


class Identities:
    """Finds the authenticated user of a call."""

    def __init__(self, tokens: Tokens, *, trust_common_names: bool, operator: Operator = Operator()) -> None:  # noqa: B008 (immutable)
        self.tokens = tokens
        self._trust_common_names = trust_common_names
        self._operator = operator

    def principal(self, call: Call, auth: AuthStore) -> Principal:
        """The user of this call; NOBODY if auth is off or the call has no credentials. Raises RequestError if the token
        is invalid, the certificate names more than one user, or a replica names a user and may not."""
        if not auth.enabled:
            return NOBODY
        token = token_of(call)
        if token:
            who = self.tokens.identify(token, auth)
            if who is None:
                raise RequestError(INVALID_AUTH_TOKEN)
            return who
        if FORWARDED in call.metadata:
            return self._vouched_for(call, auth)
        if self._operator.calls(call):
            return Principal(ROOT, auth.revision)
        user = self.certified(call)
        return Principal(user, auth.revision) if user else NOBODY

    def certified(self, call: Call) -> str:
        """The user that the connection's certificate names; empty if there is none, or certificates name no users.
        Raises RequestError if it names more than one."""
        names = call.peer.common_names
        return _only(names) if self._trust_common_names and names else ""

    def _vouched_for(self, call: Call, auth: AuthStore) -> Principal:
        """The user that a replica says it makes the call for."""
        user = _named(call.metadata.get(ON_BEHALF, ""))
        if not user:
            return NOBODY
        below = call.metadata.get(VIA, "")
        via = (self.certified(call), *(map(_named, below.split(",")) if below else ()))
        for replica in via:
            if not auth.has_role(replica, REPLICA_ROLE):
                text = (
                    f"holdfast: the call comes through an edge replica whose user {replica!r} may not make calls for "
                    f"others: it needs the role {REPLICA_ROLE}; or call with a token"
                )
                raise RequestError(Refusal(Code.PERMISSION_DENIED, text))
        if len(via) > MAX_VIA:
            raise RequestError(Refusal(Code.INVALID_ARGUMENT, f"holdfast: more than {MAX_VIA} replicas in a row"))
        return Principal(user, auth.revision, via)

    def waits_for(self, call: Call, auth: AuthStore, applied_index: int) -> bool:
        """Whether the call's token may have been issued by an entry that is not applied here yet. After one
        linearizable read that entry is applied, if it exists: the client has the token, so the entry is committed."""
        if not auth.enabled:
            return False
        token = token_of(call)
        return bool(token) and self.tokens.ahead(token, auth, applied_index)


_Password = tuple[bytes, int]


class Caller:
    """The client that opened a stream. Its rights are looked up again at each check, in the current users and roles."""

    def __init__(self, identities: Identities, call: Call, auth: Callable[[], AuthStore]) -> None:
        """`auth` returns the users and roles of now."""
        self._identities = identities
        self._call = call
        self._auth = auth
        self._who: Principal | None = None  # None until first looked up while auth is on
        self._password: _Password | None = None  # of the user at that time

    def shown(self) -> Principal:
        """The user by the call's credentials, checked as for a new call. Raises RequestError if the token is
        invalid."""
        auth = self._auth()
        who = self._identities.principal(self._call, auth)
        if auth.enabled:
            self._who, self._password = who, self._password_of(who.user)
        return who

    def standing(self) -> Principal:
        """The user found from the call's credentials earlier, with current rights. An expired token does not end a
        stream; deleting the user or changing the password does. Raises RequestError."""
        auth, who = self._auth(), self._who
        if not auth.enabled:
            return NOBODY
        if who is None:
            return self.shown()
        if token_of(self._call) and self._password_of(who.user) not in (None, self._password):
            raise RequestError(INVALID_AUTH_TOKEN)
        return who._replace(revision=auth.revision if who.user else 0)

    def _password_of(self, name: str) -> _Password | None:
        """What changes with the user's password; a replica knows only when it was set."""
        user = self._auth().users.get(name)
        return None if user is None else (user.password, user.password_revision)


def token_of(call: Call) -> str:
    """The token in a call's metadata; empty if there is none."""
    token = call.metadata.get("token") or call.metadata.get("authorization") or ""
    return token[7:] if token[:7].lower() == "bearer " else token
