"""Users and roles as edge replicas follow them: all that decides what a user may do, nothing that proves who one is."""

from __future__ import annotations

from holdfast.auth.store import AuthStore
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import auth_pb2, holdfast_pb2


def rights_of(auth: AuthStore) -> holdfast_pb2.FollowRights:
    """The users, without passwords, and roles of now."""
    rights = holdfast_pb2.FollowRights(revision=auth.revision, roles=auth.roles.values())
    for user in auth.users.values():
        rights.users.append(auth_pb2.User(name=user.name, roles=user.roles, password_revision=user.password_revision))
    return rights


def copy_of(rights: holdfast_pb2.FollowRights) -> AuthStore:
    """A copy to check rights by. It is replaced by the next one, never changed."""
    auth = AuthStore(Pending(MemoryStore()))
    auth.enabled, auth.revision = True, rights.revision
    auth.users = {user.name.decode(): user for user in rights.users}
    auth.roles = {role.name.decode(): role for role in rights.roles}
    return auth


class RightsFrame:
    """The FollowResponse with the users and roles of a member, made once for all that follow it."""

    def __init__(self) -> None:
        self._of: tuple[int, int] = (0, 0)
        self._frame = b""

    def of(self, auth: AuthStore) -> bytes:
        """The same object until they change."""
        now = id(auth), auth.revision  # a snapshot replaces the store
        if now != self._of:
            self._of = now
            self._frame = holdfast_pb2.FollowResponse(rights=rights_of(auth)).SerializeToString()
        return self._frame
