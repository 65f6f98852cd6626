"""What can go wrong, by what the caller can do about it."""

from __future__ import annotations

import grpc

_SESSION_OVER = (
    "holdfast: this client session has ended",
    "holdfast: the answer to this command of the session",
    "holdfast: this client session belongs to another user",
    "holdfast: this number of the client session",
)


class ClientError(Exception):
    """Base of all errors of this client."""


class Unavailable(ClientError):
    """No endpoint answered in time. What was asked for did not happen."""


class OutcomeUnknown(ClientError):
    """A write was sent and no answer came: it may have happened, or may yet. Read before writing again."""


class Refused(ClientError):
    """The server understood and refused. `code` is the gRPC status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Compacted(Refused):
    """The history asked for is gone. Read the present state and watch from there."""


class OutOfScope(Refused):
    """The key is not among the prefixes of the edge replica that was asked."""


class NotImplementedThere(Refused):
    """The server does not know this call: it is no holdfast, or an older one."""


class SessionEnded(Refused):
    """The client session that named a write has ended or cannot be used by this user, and nothing was sent before."""


def refused(error: grpc.aio.AioRpcError) -> Refused:
    """The error for a status that trying elsewhere would not change."""
    message = error.details() or error.code().name
    if "required revision has been compacted" in message:
        return Compacted(error.code(), message)
    if "outside this replica's prefixes" in message:
        return OutOfScope(error.code(), message)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return NotImplementedThere(error.code(), message)
    if message.startswith(_SESSION_OVER):
        return SessionEnded(error.code(), message)
    return Refused(error.code(), message)
