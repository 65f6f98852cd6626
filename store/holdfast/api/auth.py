"""etcdserverpb.Auth: users, roles, and tokens in exchange for passwords.

Hashing a password takes a tenth of a second of CPU by design, so it is done in a thread, never on the loop.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt
from google.protobuf.message import Message

from holdfast.api.base import Service, Serving
from holdfast.api.tokens import new_token
from holdfast.auth.store import AuthStore, Principal
from holdfast.front.calls import Call
from holdfast.member.driver import Member
from holdfast.places import Full, Places
from holdfast.proto import auth_pb2, raft_pb2, rpc_pb2
from holdfast.status import (
    AUTH_FAILED,
    AUTH_NOT_ENABLED,
    PASSWORD_TOO_LONG,
    TOO_MANY_REQUESTS,
    RequestError,
)
from holdfast.tasks import Tasks

_PATH = "/etcdserverpb.Auth/"
# Changes that are proposed without further processing: method, field of AuthChange, request.
_CHANGES: tuple[tuple[str, str, type[Message]], ...] = (
    ("AuthEnable", "enable", rpc_pb2.AuthEnableRequest),
    ("AuthDisable", "disable", rpc_pb2.AuthDisableRequest),
    ("UserDelete", "user_delete", rpc_pb2.AuthUserDeleteRequest),
    ("UserGrantRole", "user_grant_role", rpc_pb2.AuthUserGrantRoleRequest),
    ("UserRevokeRole", "user_revoke_role", rpc_pb2.AuthUserRevokeRoleRequest),
    ("RoleAdd", "role_add", rpc_pb2.AuthRoleAddRequest),
    ("RoleDelete", "role_delete", rpc_pb2.AuthRoleDeleteRequest),
    ("RoleGrantPermission", "role_grant_permission", rpc_pb2.AuthRoleGrantPermissionRequest),
    ("RoleRevokePermission", "role_revoke_permission", rpc_pb2.AuthRoleRevokePermissionRequest),
)
T = TypeVar("T")
HASHING_THREADS = 2
MAX_HASHING = 64  # passwords of one connection that are being hashed or wait for a thread
MAX_PASSWORD_BYTES = 72  # bcrypt ignores the rest


class AuthService(Service):
    def __init__(self, serving: Serving, bcrypt_cost: int = 10) -> None:
        super().__init__(serving)
        self._cost = bcrypt_cost
        self._tasks = Tasks()
        # A small pool of its own, for which clients take turns: one that tries many passwords delays only itself.
        self._threads = ThreadPoolExecutor(HASHING_THREADS, "bcrypt")
        self._places = Places(HASHING_THREADS, MAX_HASHING)
        self._no_match: bytes | None = None
        router = self.router
        for method, field, request in _CHANGES:
            router.unary(_PATH + method, self._change(field, request))
        router.unary(_PATH + "UserAdd", self.user_add)
        router.unary(_PATH + "UserChangePassword", self.user_change_password)
        router.unary(_PATH + "Authenticate", self.authenticate)
        router.unary(_PATH + "AuthStatus", self.status)
        router.unary(_PATH + "UserGet", self.user_get)
        router.unary(_PATH + "UserList", self.user_list)
        router.unary(_PATH + "RoleGet", self.role_get)
        router.unary(_PATH + "RoleList", self.role_list)

    # ---- changes -------------------------------------------------------------------------------------------

    def _change(self, field: str, request: type[Message]) -> Callable[[Call, bytes], None]:
        def handle(call: Call, body: bytes) -> None:
            change = raft_pb2.AuthChange()
            getattr(change, field).MergeFrom(request.FromString(body))
            getattr(change, field).SetInParent()
            self._propose(call, self.member(call), change)

        return handle

    def _propose(self, call: Call, member: Member, change: raft_pb2.AuthChange) -> None:
        self.propose_and_answer(call, member, raft_pb2.Command(auth=change))

    def user_add(self, call: Call, body: bytes) -> None:
        change = raft_pb2.AuthChange(user_add=rpc_pb2.AuthUserAddRequest.FromString(body))
        self._propose_hashed(call, change, change.user_add, needed=not change.user_add.options.no_password)

    def user_change_password(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.AuthUserChangePasswordRequest.FromString(body)
        change = raft_pb2.AuthChange(user_change_password=request)
        self._propose_hashed(call, change, change.user_change_password, needed=True)

    def _propose_hashed(
        self,
        call: Call,
        change: raft_pb2.AuthChange,
        request: rpc_pb2.AuthUserAddRequest | rpc_pb2.AuthUserChangePasswordRequest,
        *,
        needed: bool,
    ) -> None:
        """Hash the password in `request`, a part of `change`, and propose: passwords must not get into the log."""
        member = self.member(call)
        password = request.password
        request.ClearField("password")
        if request.hashedPassword or not needed:
            self._propose(call, member, change)
            return

        def hashed(text: str) -> None:
            request.hashedPassword = text
            self._propose(call, member, change)

        self._hash(call, password, hashed)

    def _hash(self, call: Call, password: str, done: Callable[[str], None]) -> None:
        secret = password.encode()
        if len(secret) > MAX_PASSWORD_BYTES:
            raise RequestError(PASSWORD_TOO_LONG)  # bcrypt would ignore the rest
        self._compute(
            call,
            lambda: bcrypt.hashpw(secret, bcrypt.gensalt(self._cost)),
            lambda hashed: done(base64.b64encode(hashed).decode()),
        )

    def _compute(self, call: Call, slow: Callable[[], T], done: Callable[[T], None]) -> None:
        """Run `slow` in a thread when it is this client's turn, then call `done` with its result on the loop."""
        try:
            place = self._places.ask(call.peer.address)
        except Full:
            raise RequestError(TOO_MANY_REQUESTS) from None
        self.router.on_cancel(call, place.give_up)

        async def work() -> None:
            async with place:
                result = await asyncio.get_running_loop().run_in_executor(self._threads, slow)
            self.guard(call, lambda: done(result))

        self._tasks.spawn(work())

    # ---- tokens --------------------------------------------------------------------------------------------

    def authenticate(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.AuthenticateRequest.FromString(body)
        member = self.member(call)
        auth = member.state.auth
        if not auth.enabled:
            raise RequestError(AUTH_NOT_ENABLED)
        user = auth.users.get(request.name)
        revision = auth.revision
        secret = request.password.encode()
        if len(secret) > MAX_PASSWORD_BYTES:
            raise RequestError(AUTH_FAILED)
        # Neither the duration nor the error may reveal whether the user exists or has a password.
        hashed = user.password if user is not None and not user.options.no_password else self._nobodys()
        self._compute(
            call,
            lambda: _matches(secret, hashed),
            lambda right: self._compared(call, member, user, hashed, revision, right),
        )

    def _nobodys(self) -> bytes:
        """A hash that no known password matches, as costly to compare with as any other."""
        if self._no_match is None:
            salt = bcrypt.gensalt(self._cost).decode()
            self._no_match = (salt + "." * 31).encode()
        return self._no_match

    def _compared(
        self, call: Call, member: Member, user: auth_pb2.User | None, hashed: bytes, revision: int, right: bool
    ) -> None:
        if not right or user is None or hashed != user.password:
            raise RequestError(AUTH_FAILED)
        name = user.name.decode()
        token = self.serving.identities.tokens.issue(name, revision)
        if token is not None:
            self.answer(call, member, rpc_pb2.AuthenticateResponse(token=token))
            return
        shown = raft_pb2.Authentication(user=name, token=new_token(), password=user.password)
        # The caller has shown a password; whatever else the call says about its user does not matter.
        command = raft_pb2.Command(auth=raft_pb2.AuthChange(authenticated=shown))
        self.submit(call, member, command, self.answering(call, member))

    # ---- reading -------------------------------------------------------------------------------------------

    def _read(self, call: Call, read: Callable[[AuthStore, Principal], Message]) -> None:
        """Answer with the result of `read`, once everything acknowledged so far is applied."""
        member = self.member(call)

        def current() -> None:
            # Look the state up only now: a snapshot may have replaced it meanwhile.
            self.answer(call, member, read(member.state.auth, self.principal(call, member)))

        self.when_current(call, member, current)

    def _read_as_admin(self, call: Call, read: Callable[[AuthStore], Message]) -> None:
        def allowed(auth: AuthStore, who: Principal) -> Message:
            auth.require_admin(who)
            return read(auth)

        self._read(call, allowed)

    def status(self, call: Call, body: bytes) -> None:
        rpc_pb2.AuthStatusRequest.FromString(body)
        self._read_as_admin(
            call, lambda auth: rpc_pb2.AuthStatusResponse(enabled=auth.enabled, authRevision=auth.revision)
        )

    def user_list(self, call: Call, body: bytes) -> None:
        rpc_pb2.AuthUserListRequest.FromString(body)
        self._read_as_admin(call, lambda auth: rpc_pb2.AuthUserListResponse(users=sorted(auth.users)))

    def role_list(self, call: Call, body: bytes) -> None:
        rpc_pb2.AuthRoleListRequest.FromString(body)
        self._read_as_admin(call, lambda auth: rpc_pb2.AuthRoleListResponse(roles=sorted(auth.roles)))

    def user_get(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.AuthUserGetRequest.FromString(body)

        def read(auth: AuthStore, who: Principal) -> Message:
            if who.user != request.name:
                auth.require_admin(who)
            return rpc_pb2.AuthUserGetResponse(roles=auth.user(request.name).roles)

        self._read(call, read)

    def role_get(self, call: Call, body: bytes) -> None:
        request = rpc_pb2.AuthRoleGetRequest.FromString(body)

        def read(auth: AuthStore, who: Principal) -> Message:
            if not auth.has_role(who.user, request.role):
                auth.require_admin(who)
            return rpc_pb2.AuthRoleGetResponse(perm=auth.permissions(request.role))

        self._read(call, read)


def _matches(secret: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(secret, hashed)
    except ValueError:  # not a bcrypt hash
        return False
