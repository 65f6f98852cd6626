"""Who this client says it is: a name and a password, and the token that they were exchanged for.

A token is got with the first call and shown with each; when a server says that it is void (it has expired, the member
that knew it was restarted, users were changed), another one is got, once. A cluster whose users do not count gives no
tokens, and then none is shown.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.client.errors import Refused
from holdfast.proto import rpc_pb2

if TYPE_CHECKING:
    from holdfast.client.connection import Connection, Metadata

_AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
_NOT_NEEDED = "authentication is not enabled"
# What servers say of a token that is void; the last one when none was shown, because users did not count before.
_VOID = ("invalid auth token", "revision of auth store is old", "user name is empty")


class Login:
    """One user. Shared by all calls of a client."""

    def __init__(self, user: str, password: str) -> None:
        if not user:
            raise ValueError("a password without a user: give both")
        self._request = rpc_pb2.AuthenticateRequest(name=user, password=password)
        self._token: str | None = None  # None: to be asked for; empty: none is needed
        self._asking = asyncio.Lock()

    async def metadata(self, connection: Connection) -> Metadata:
        """What to show with a call. Raises a ClientError: Refused for a wrong password."""
        if self._token is None:
            async with self._asking:
                if self._token is None:
                    self._token = await self._ask(connection)
        return self._shown()

    def _shown(self) -> Metadata:
        return (("token", self._token),) if self._token else ()

    async def _ask(self, connection: Connection) -> str:
        try:
            answer = await connection.call(
                _AUTHENTICATE, self._request, rpc_pb2.AuthenticateResponse, idempotent=True, anonymous=True
            )
        except Refused as error:
            if _NOT_NEEDED in str(error):
                return ""
            raise
        return answer.token

    def void(self, shown: Metadata, reason: str) -> bool:
        """Whether a call was refused because of what it showed; then another token is asked for."""
        if not any(words in reason for words in _VOID):
            return False
        if shown == self._shown():  # or somebody else has seen it already, and asked
            self._token = None
        return True
