"""The client's credentials: a user name and a password, and the token obtained for them.

The token is requested with the first call and sent with each. When a server says that it is invalid (it has expired,
the member that knew it was restarted, users were changed), the client requests a new one, once. If auth is off in the
cluster, there are no tokens, and none is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.client.errors import Refused
from holdfast.proto import rpc_pb2
from holdfast.status import AUTH_NOT_ENABLED, AUTH_OLD_REVISION, INVALID_AUTH_TOKEN, USER_EMPTY, Known

Metadata = tuple[tuple[str, str], ...]
Headers = list[tuple[str, str | bytes]]  # of an answer
Authenticate = Callable[[rpc_pb2.AuthenticateRequest], Awaitable[rpc_pb2.AuthenticateResponse]]

# Errors that mean that the token is invalid; USER_EMPTY: that there was none, because auth was off before.
_VOID = (INVALID_AUTH_TOKEN, AUTH_OLD_REVISION, USER_EMPTY)


class Login:
    """The login of one user, shared by all calls of a client."""

    def __init__(self, user: str, password: str) -> None:
        if not user:
            raise ValueError("a password without a user: give both")
        self._request = rpc_pb2.AuthenticateRequest(name=user, password=password)
        self._token: str | None = None  # None: to be requested; empty: none is needed
        self._asking = asyncio.Lock()

    async def metadata(self, authenticate: Authenticate) -> Metadata:
        """The metadata to send with a call. `authenticate` requests a token from the cluster. Raises a ClientError:
        Refused for a wrong password."""
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
        """Whether a call with metadata `shown` was refused because of its token. If so, the next call requests a new
        token."""
        if reason not in _VOID:
            return False
        if shown == self._shown():  # otherwise another call has already replaced the token
            self._token = None
        return True
