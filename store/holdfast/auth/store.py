"""Users and roles in the replicated state, changed only by the log, with etcd's rules for every change.

`revision` grows with each change. A token made before the last change is invalid wherever the revision is checked.
Members know the tokens that they have applied since they started, but tokens are not part of the state: after a restart
a member knows none, and clients have to authenticate again.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from google.protobuf.message import Message

from holdfast.auth.rights import Rights
from holdfast.keyrange import Range, bounds, prefix_end
from holdfast.kv.store import Family, Pending
from holdfast.proto import auth_pb2, raft_pb2, rpc_pb2
from holdfast.status import (
    AUTH_FAILED,
    AUTH_NOT_ENABLED,
    AUTH_OLD_REVISION,
    BAD_HASH,
    INVALID_AUTH_MANAGEMENT,
    NO_ADMIN_THROUGH_REPLICA,
    NO_PASSWORD_USER,
    PERMISSION_DENIED,
    PERMISSION_NOT_GIVEN,
    PERMISSION_NOT_GRANTED,
    REPLICA_DENIED,
    ROLE_EMPTY,
    ROLE_EXISTS,
    ROLE_NOT_FOUND,
    ROLE_NOT_GRANTED,
    ROOT_ROLE_MISSING,
    ROOT_USER_MISSING,
    USER_EMPTY,
    USER_EXISTS,
    USER_NOT_FOUND,
    RequestError,
)

ROOT = "root"
# A user with this role, that of an edge replica's certificate, may say for which user it makes a call, and is told of
# all users and roles. What it may do itself bounds what those users may do through it.
REPLICA_ROLE = "holdfast-replica"
FIRST_REVISION = 1

_SHOWN_BYTES = 100  # of a key, in an error
_STATE = b"auth"
_USER = b"user/"
_ROLE = b"role/"
_P = auth_pb2.Permission
_ROOT_PERMISSION = _P(permType=_P.READWRITE, key=b"", range_end=b"\x00")


class Principal(NamedTuple):
    """The authenticated user of a request, and the auth revision at which it was. No user: not authenticated. `via`:
    the users of the replicas that vouch for that. The request may do only what each of them may do, too."""

    user: str
    revision: int
    via: tuple[str, ...] = ()


NOBODY = Principal("", 0)


class AuthStore:
    """Users, roles and permissions, kept as rows of the state. Pure; writes go to `pending`."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        state = raft_pb2.AuthState.FromString(pending.get(Family.META, _STATE) or b"")
        self.enabled = state.enabled
        self.revision = state.revision or FIRST_REVISION
        self.users: dict[str, auth_pb2.User] = {}
        self.roles: dict[str, auth_pb2.Role] = {}
        self._dates_passwords = False
        self.tokens: dict[str, str] = {}  # simple tokens applied since this member started -> user
        self._rights: dict[str, tuple[Rights, Rights]] = {}  # cached: user -> (may read, may write)
        for key, row in pending.scan(Family.META, _USER, prefix_end(_USER)):
            self.users[key[len(_USER) :].decode()] = auth_pb2.User.FromString(row)
        for key, row in pending.scan(Family.META, _ROLE, prefix_end(_ROLE)):
            self.roles[key[len(_ROLE) :].decode()] = auth_pb2.Role.FromString(row)

    # ---- checks --------------------------------------------------------------------------------------------

    def require_read(self, who: Principal, key: bytes, range_end: bytes) -> None:
        """Raise RequestError unless `who` may read this range."""
        self._require(who, 0, key, range_end)

    def require_write(self, who: Principal, key: bytes, range_end: bytes = b"") -> None:
        """Raise RequestError unless `who` may write this range."""
        self._require(who, 1, key, range_end)

    def require_current(self, who: Principal) -> None:
        """Raise RequestError unless auth is off or `who` is authenticated at the current auth revision."""
        if not self.enabled:
            return
        if who.revision == 0:
            raise RequestError(USER_EMPTY)
        if who.revision < self.revision:
            raise RequestError(AUTH_OLD_REVISION)

    def require_admin(self, who: Principal) -> None:
        """Raise RequestError unless auth is off or `who` has the role root."""
        if not self.enabled:
            return
        if not who.user:
            raise RequestError(USER_EMPTY)
        if not self.is_admin(who):
            raise RequestError(NO_ADMIN_THROUGH_REPLICA if self.is_root(who.user) else PERMISSION_DENIED)

    def superseded(self, user: str, revision: int) -> bool:
        """Whether the password of `user` was changed, or the user was deleted and added again, after `revision`."""
        known = self.users.get(user)
        return self.enabled and known is not None and revision < known.password_revision

    def is_admin(self, who: Principal) -> bool:
        """Whether `who` has the role root, and proves it itself: a replica vouches for nobody's administration."""
        return self.is_root(who.user) and not who.via

    def is_root(self, user: str) -> bool:
        return self.has_role(user, ROOT)

    def has_role(self, user: str, role: str) -> bool:
        known = self.users.get(user)
        return known is not None and role in known.roles

    def _require(self, who: Principal, kind: int, key: bytes, range_end: bytes) -> None:
        if not self.enabled:
            return
        self.require_current(who)
        if not self._may(who.user, kind, key, range_end):
            raise RequestError(PERMISSION_DENIED)
        for replica in who.via:
            if not self._may(replica, kind, key, range_end):
                shown = key[:_SHOWN_BYTES].decode("utf-8", "replace") + ("..." if len(key) > _SHOWN_BYTES else "")
                does = ("read", "write")[kind]
                raise RequestError(REPLICA_DENIED.fill(user=repr(replica), do=does, key=shown))

    def _may(self, user: str, kind: int, key: bytes, range_end: bytes) -> bool:
        if user not in self.users:
            return False
        return self.is_root(user) or self._rights_of(user)[kind].cover(key, range_end)

    def _rights_of(self, user: str) -> tuple[Rights, Rights]:
        known = self._rights.get(user)
        if known is None:
            roles = [self.roles[name] for name in self.users[user].roles if name in self.roles]
            grants = [p for role in roles for p in role.keyPermission]
            known = self._rights[user] = (
                Rights(_range(p) for p in grants if p.permType in (_P.READ, _P.READWRITE)),
                Rights(_range(p) for p in grants if p.permType in (_P.WRITE, _P.READWRITE)),
            )
        return known

    def permissions(self, role: str) -> list[auth_pb2.Permission]:
        """The permissions granted to a role. Raises RequestError if there is no such role."""
        known = self.roles.get(role)
        if known is None:
            raise RequestError(ROLE_NOT_FOUND)
        return [_ROOT_PERMISSION] if role == ROOT else list(known.keyPermission)

    def user(self, name: str) -> auth_pb2.User:
        known = self.users.get(name)
        if known is None:
            raise RequestError(USER_NOT_FOUND)
        return known

    # ---- changes -------------------------------------------------------------------------------------------

    def apply(self, change: raft_pb2.AuthChange, who: Principal, index: int, level: int) -> Message:
        """Execute the change in entry `index`, by the rules of `level`. Returns the response without header. If it
        raises RequestError, nothing was changed."""
        kind = change.WhichOneof("op")
        if kind is None:
            raise AssertionError("a change of users or roles of an unknown kind: upgrade this program")
        if kind == "authenticated":
            return self._authenticated(change.authenticated, index)
        self.require_admin(who)
        if level >= 2 and self.superseded(who.user, who.revision):
            raise RequestError(AUTH_OLD_REVISION)
        self._dates_passwords = level >= 2
        request = getattr(change, kind)
        return getattr(self, f"_{kind}")(request)  # type: ignore[no-any-return]

    def _enable(self, request: rpc_pb2.AuthEnableRequest) -> Message:
        if not self.enabled:
            root = self.users.get(ROOT)
            if root is None:
                raise RequestError(ROOT_USER_MISSING)
            if ROOT not in root.roles:
                raise RequestError(ROOT_ROLE_MISSING)
            self.enabled = True
            self._put_state()
        return rpc_pb2.AuthEnableResponse()

    def _disable(self, request: rpc_pb2.AuthDisableRequest) -> Message:
        if self.enabled:
            self.enabled = False
            self.tokens.clear()
            self._changed()
        return rpc_pb2.AuthDisableResponse()

    def _user_add(self, request: rpc_pb2.AuthUserAddRequest) -> Message:
        if not request.name:
            raise RequestError(USER_EMPTY)
        if request.name in self.users:
            raise RequestError(USER_EXISTS)
        user = auth_pb2.User(name=request.name.encode())
        user.options.no_password = request.options.no_password
        if not request.options.no_password:
            user.password = _decoded(request.hashedPassword)
        self._date_password(user)
        self._put_user(request.name, user)
        return rpc_pb2.AuthUserAddResponse()

    def _user_delete(self, request: rpc_pb2.AuthUserDeleteRequest) -> Message:
        if self.enabled and request.name == ROOT:
            raise RequestError(INVALID_AUTH_MANAGEMENT)
        self.user(request.name)
        self._put_user(request.name, None)
        self._forget_tokens(request.name)
        return rpc_pb2.AuthUserDeleteResponse()

    def _user_change_password(self, request: rpc_pb2.AuthUserChangePasswordRequest) -> Message:
        user = _copy(self.user(request.name))
        if not user.options.no_password:
            user.password = _decoded(request.hashedPassword)
        self._date_password(user)
        self._put_user(request.name, user)
        self._forget_tokens(request.name)
        return rpc_pb2.AuthUserChangePasswordResponse()

    def _date_password(self, user: auth_pb2.User) -> None:
        if self._dates_passwords:
            user.password_revision = self.revision + 1  # the revision that this change makes

    def _user_grant_role(self, request: rpc_pb2.AuthUserGrantRoleRequest) -> Message:
        user = _copy(self.user(request.user))
        if request.role != ROOT and request.role not in self.roles:
            raise RequestError(ROLE_NOT_FOUND)
        if request.role not in user.roles:
            roles = sorted({*user.roles, request.role})
            del user.roles[:]
            user.roles.extend(roles)
            self._put_user(request.user, user)
        return rpc_pb2.AuthUserGrantRoleResponse()

    def _user_revoke_role(self, request: rpc_pb2.AuthUserRevokeRoleRequest) -> Message:
        if self.enabled and request.name == ROOT and request.role == ROOT:
            raise RequestError(INVALID_AUTH_MANAGEMENT)
        user = _copy(self.user(request.name))
        if request.role not in user.roles:
            raise RequestError(ROLE_NOT_GRANTED)
        user.roles.remove(request.role)
        self._put_user(request.name, user)
        return rpc_pb2.AuthUserRevokeRoleResponse()

    def _role_add(self, request: rpc_pb2.AuthRoleAddRequest) -> Message:
        if not request.name:
            raise RequestError(ROLE_EMPTY)
        if request.name in self.roles:
            raise RequestError(ROLE_EXISTS)
        self._put_role(request.name, auth_pb2.Role(name=request.name.encode()))
        return rpc_pb2.AuthRoleAddResponse()

    def _role_delete(self, request: rpc_pb2.AuthRoleDeleteRequest) -> Message:
        if self.enabled and request.role == ROOT:
            raise RequestError(INVALID_AUTH_MANAGEMENT)
        if request.role not in self.roles:
            raise RequestError(ROLE_NOT_FOUND)
        for name in sorted(self.users):
            if request.role in self.users[name].roles:
                user = _copy(self.users[name])
                user.roles.remove(request.role)
                self._write_user(name, user)
        self._put_role(request.role, None)
        return rpc_pb2.AuthRoleDeleteResponse()

    def _role_grant_permission(self, request: rpc_pb2.AuthRoleGrantPermissionRequest) -> Message:
        if not request.HasField("perm"):
            raise RequestError(PERMISSION_NOT_GIVEN)
        perm = request.perm
        start, end = _range(perm)
        if not start or (end is not None and end <= start):
            raise RequestError(INVALID_AUTH_MANAGEMENT)
        known = self.roles.get(request.name)
        if known is None:
            raise RequestError(ROLE_NOT_FOUND)
        grants = [p for p in known.keyPermission if (p.key, p.range_end) != (perm.key, perm.range_end)]
        grants = sorted([*grants, perm], key=lambda p: p.key)
        self._put_role(request.name, auth_pb2.Role(name=known.name, keyPermission=grants))
        return rpc_pb2.AuthRoleGrantPermissionResponse()

    def _role_revoke_permission(self, request: rpc_pb2.AuthRoleRevokePermissionRequest) -> Message:
        known = self.roles.get(request.role)
        if known is None:
            raise RequestError(ROLE_NOT_FOUND)
        grants = [p for p in known.keyPermission if (p.key, p.range_end) != (request.key, request.range_end)]
        if len(grants) == len(known.keyPermission):
            raise RequestError(PERMISSION_NOT_GRANTED)
        self._put_role(request.role, auth_pb2.Role(name=known.name, keyPermission=grants))
        return rpc_pb2.AuthRoleRevokePermissionResponse()

    def _authenticated(self, shown: raft_pb2.Authentication, index: int) -> Message:
        """A member checked the user's password. Issue a token if that is still the user's password."""
        if not self.enabled:
            raise RequestError(AUTH_NOT_ENABLED)
        user = self.users.get(shown.user)
        if user is None or user.password != shown.password:
            raise RequestError(AUTH_FAILED)
        if user.options.no_password:
            raise RequestError(NO_PASSWORD_USER)
        token = f"{shown.token}.{index}"
        self.tokens[token] = shown.user
        return rpc_pb2.AuthenticateResponse(token=token)

    # ---- rows ----------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self.revision += 1
        self._rights.clear()
        self._put_state()

    def _put_state(self) -> None:
        state = raft_pb2.AuthState(enabled=self.enabled, revision=self.revision)
        self._pending.put(Family.META, _STATE, state.SerializeToString(deterministic=True))

    def _put_user(self, name: str, user: auth_pb2.User | None) -> None:
        self._write_user(name, user)
        self._changed()

    def _write_user(self, name: str, user: auth_pb2.User | None) -> None:
        if user is None:
            del self.users[name]
        else:
            self.users[name] = user
        self._pending.put(Family.META, _USER + name.encode(), _row(user))

    def _put_role(self, name: str, role: auth_pb2.Role | None) -> None:
        if role is None:
            del self.roles[name]
        else:
            self.roles[name] = role
        self._pending.put(Family.META, _ROLE + name.encode(), _row(role))
        self._changed()

    def _forget_tokens(self, user: str) -> None:
        for token in [t for t, owner in self.tokens.items() if owner == user]:
            del self.tokens[token]


def _decoded(text: str) -> bytes:
    """Decode a password hash of a request. Raises RequestError, so that all members refuse the entry alike."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise RequestError(BAD_HASH) from None


def _range(perm: auth_pb2.Permission) -> Range:
    """The half-open range of a permission."""
    return bounds(perm.key, perm.range_end)


def _copy(user: auth_pb2.User) -> auth_pb2.User:
    new = auth_pb2.User()
    new.CopyFrom(user)
    return new


def _row(message: Message | None) -> bytes | None:
    return None if message is None else message.SerializeToString(deterministic=True)
