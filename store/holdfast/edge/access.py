"""Who may read what a replica has: the rights of the caller as of the watermark, which are followed like the data.

A caller is known by the name in its certificate, or by a token that a member has checked. States of a replica:

- auth is off in the cluster, or --anonymous-reads: everyone may read all prefixes;
- auth is on, and users and roles are known here: each caller may read what they let it, also while cut off;
- auth is on, and they are not known: nobody may read. The replica's own user lacks the role that it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from holdfast.api.identity import FORWARDED, ON_BEHALF, VIA, Caller, Identities, token_of
from holdfast.auth.store import NOBODY, REPLICA_ROLE, AuthStore, Principal
from holdfast.edge.core import ReplicaCore
from holdfast.edge.tokens import CheckedTokens
from holdfast.front.calls import Call
from holdfast.keyrange import Range
from holdfast.kv.store import MemoryStore, Pending
from holdfast.status import Code, Refusal, RequestError


class Access:
    """The rights of all callers of a replica. `reaches_cluster` says whether a member can be asked now."""

    def __init__(
        self,
        core: ReplicaCore,
        tokens: CheckedTokens,
        *,
        name: str,
        trust_common_names: bool,
        anonymous_reads: bool,
        reaches_cluster: Callable[[], bool],
    ) -> None:
        self._core = core
        self._name = name
        self._anonymous_reads = anonymous_reads
        self._reaches_cluster = reaches_cluster
        self._off = AuthStore(Pending(MemoryStore()))
        self.tokens = tokens
        self.identities = Identities(tokens, trust_common_names=trust_common_names)

    @property
    def auth(self) -> AuthStore:
        """The users and roles; none while auth is off, or they are not known."""
        return self._core.rights.auth or self._off

    @property
    def open(self) -> bool:
        """Whether everyone may read."""
        return not self._core.rights.users or self._anonymous_reads

    def caller(self, call: Call) -> ReplicaCaller:
        return ReplicaCaller(self, Caller(self.identities, call, lambda: self.auth), call)

    def due(self, call: Call) -> str:
        """The token of this call if a member should be asked about it first; else empty."""
        token = token_of(call)
        wanted = token and self._core.rights.auth is not None and self._reaches_cluster() and self.tokens.due(token)
        return token if wanted else ""

    def is_replica(self, who: Principal) -> bool:
        """Whether this is the user of a replica, which may know users and roles."""
        return self._core.rights.auth is not None and self.auth.has_role(who.user, REPLICA_ROLE)

    @property
    def users(self) -> bool:
        """Whether auth is on in the cluster."""
        return self._core.rights.users

    def require_known(self) -> None:
        """Raise RequestError if nobody's rights are known, and reads are not open to everyone."""
        if not self.open:
            self.require_rights()

    def require_rights(self) -> None:
        """Raise RequestError if nobody's rights are known."""
        if self._core.rights.auth is None:
            raise RequestError(
                Refusal(
                    Code.PERMISSION_DENIED,
                    f"holdfast: the cluster has users, and replica {self._name} cannot tell what they may read; give "
                    f"the role {REPLICA_ROLE} to the user of its certificate, read from the cluster, or start the "
                    "replica with --anonymous-reads to serve its prefixes to everyone",
                )
            )

    def require_checked(self, call: Call) -> None:
        """Raise RequestError if the call has a token that is not known here, and cannot be checked now."""
        token = token_of(call)
        if token and self.tokens.identify(token, self.auth) is None and not self._reaches_cluster():
            raise RequestError(
                Refusal(
                    Code.UNAVAILABLE,
                    f"holdfast: replica {self._name} is cut off from the cluster, and the call's token was not checked "
                    "before, or too long ago",
                )
            )

    def on_behalf_of(self, call: Call) -> list[tuple[str, str]]:
        """The metadata by which a forwarded call says whose it is. A token speaks for itself."""
        if token_of(call):
            return []
        user = self.identities.certified(call)
        if FORWARDED not in call.metadata:
            return [(ON_BEHALF, quote(user, safe=""))] if user else []
        named = call.metadata.get(ON_BEHALF, "")
        if not named or not user:
            return []  # without a certificate, a caller may not say who somebody else is
        # A member refuses the call, and says why, unless each user of VIA has the role of a replica.
        below = call.metadata.get(VIA, "")
        return [(ON_BEHALF, named), (VIA, quote(user, safe="") + (f",{below}" if below else ""))]


class ReplicaCaller:
    """The caller of one call."""

    def __init__(self, access: Access, caller: Caller, call: Call) -> None:
        self._access = access
        self._caller = caller
        self._call = call

    def who(self, *, again: bool = False) -> Principal:
        """The caller's user. `again`: it was found before, on the same stream. Raises RequestError."""
        access = self._access
        if access.open:
            return NOBODY
        access.require_known()
        if again:
            return self._caller.standing()
        access.require_checked(self._call)
        return self._caller.shown()

    def require_user(self, *, again: bool = False) -> None:
        """Raise RequestError unless the caller may read anything at all."""
        who = self.who(again=again)
        if not self._access.open:
            self._access.auth.require_current(who)

    def require_write(self, key: bytes) -> None:
        """Raise RequestError unless the caller may write this key."""
        self.require(lambda auth, who: auth.require_write(who, key))

    def require(self, check: Callable[[AuthStore, Principal], None]) -> None:
        """Raise RequestError unless the caller has the rights that `check` asks for. Who may read anonymously may do
        nothing else."""
        access = self._access
        if not access.users:
            return
        access.require_rights()
        access.require_checked(self._call)
        check(access.auth, self._caller.shown())

    def require_read(self, range: Range, *, again: bool = False) -> None:
        """Raise RequestError unless the caller may read this range."""
        who = self.who(again=again)
        if not self._access.open:
            low, high = range
            self._access.auth.require_read(who, low, b"\x00" if high is None else high)
