"""Users and roles as a replica has them on its disk: as of its watermark, and after a restart without a network.

States: auth is off; auth is on and users and roles are not known here; auth is on and they are known.
"""

from __future__ import annotations

import contextlib

from google.protobuf.message import DecodeError

from holdfast.auth.followed import copy_of
from holdfast.auth.store import AuthStore
from holdfast.edge.notes import Notes
from holdfast.proto import holdfast_pb2

_USERS = b"users"
_RIGHTS = b"rights"


class FollowedRights:
    """Kept among a replica's notes."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.users = notes.get(_USERS) is not None  # whether auth is on in the cluster, as last reported
        self.frame = notes.get(_RIGHTS) or b""  # the FollowResponse with users and roles, for others
        self.auth: AuthStore | None = None
        self._read()

    def greeted(self, hello: holdfast_pb2.FollowHello) -> None:
        """An upstream has said whether auth is on, and whether this replica may know users and roles."""
        if hello.users != self.users:
            self.users = hello.users
            self._notes.put(_USERS, b"" if hello.users else None)
        if not hello.rights and self.frame:
            self._set(b"")

    def take(self, rights: holdfast_pb2.FollowRights) -> None:
        """Users and roles have changed."""
        self._set(holdfast_pb2.FollowResponse(rights=rights).SerializeToString())

    def _set(self, frame: bytes) -> None:
        self.frame = frame
        self._notes.put(_RIGHTS, frame or None)
        self._read()

    def _read(self) -> None:
        """What cannot be read counts as no rights: nobody is let in before they are sent again."""
        self.auth = None
        with contextlib.suppress(DecodeError, UnicodeDecodeError):
            if self.frame:
                self.auth = copy_of(holdfast_pb2.FollowResponse.FromString(self.frame).rights)
