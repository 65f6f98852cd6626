"""Who this client says it is: a name and a password, and the token that they were exchanged for.

A token is got with the first call and shown with each; when a server says that it is void (it has expired, the member
that knew it was restarted, users were changed), another one is got, once. A cluster whose users do not count gives no
tokens, and then none is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.client.errors import Refused
from holdfast.proto import rpc_pb2
from holdfast.status import AUTH_NOT_ENABLED, AUTH_OLD_REVISION, INVALID_AUTH_TOKEN, USER_EMPTY, Known

Metadata = tuple[tuple[str, str], ...]
Authenticate = Callable[[rpc_pb2.AuthenticateRequest], Awaitable[rpc_pb2.AuthenticateResponse]]

# Of a token that is void; the last one of a call that showed none, because authentication was not enabled before.
_VOID = (INVALID_AUTH_TOKEN, AUTH_OLD_REVISION, USER_EMPTY)


class Login:
    """One user. Shared by all calls of a client."""

    def __init__(self, user: str, password: str) -> None:
        if not user:
            raise ValueError("a password without a user: give both")
        self._request = rpc_pb2.AuthenticateRequest(name=user, password=password)
        self._token: str | None = None  # None: to be asked for; empty: none is needed
        self._asking = asyncio.Lock()

    async def metadata(self, authenticate: Authenticate) -> Metadata:
        """What to show with a call. `authenticate` asks the cluster for a token. Raises a ClientError: Refused for a
        wrong password."""
        if self._token is None:
            async with self._asking:
                if self._token is None:
                    self._token = await self._ask(authenticate)
        return self._shown()

    def _shown(self) -> Metadata:
        return (("token", self._token),) if self._token else ()

    async def _ask(self, authenticate: Authenticate) -> str:
        try:
            return (await authenticate(self._request)).token
        except Refused as error:
            if error.known == AUTH_NOT_ENABLED:
                return ""
            raise

    def void(self, shown: Metadata, reason: Known | None) -> bool:
        """Whether a call was refused because of what it showed; then another token is asked for."""
        if reason not in _VOID:
            return False
        if shown == self._shown():  # or somebody else has seen it already, and asked
            self._token = None
        return True
