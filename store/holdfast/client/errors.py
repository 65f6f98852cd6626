"""The client's errors, classified by what the caller can do about them."""

from __future__ import annotations

import grpc
import grpc.aio

from holdfast.status import (
    COMPACTED,
    NAME_METADATA,
    OUTSIDE_PREFIXES,
    SESSION_ENDED,
    SESSION_FOREIGN,
    SESSION_FORGOTTEN,
    SESSION_OTHER_COMMAND,
    Known,
    known,
)

_SESSION_OVER = (SESSION_ENDED, SESSION_FORGOTTEN, SESSION_FOREIGN, SESSION_OTHER_COMMAND)


class ClientError(Exception):
    """Base of all errors of this client."""


class Unavailable(ClientError):
    """No endpoint did it in time. The call had no effect. `known` is the constant of `holdfast.status` that a server
    gave as the reason; None if none was reached, or it gave another reason."""

    def __init__(self, message: str, known: Known | None = None) -> None:
        super().__init__(message)
        self.known = known


class OutcomeUnknown(ClientError):
    """A write was sent and no answer came: it may have taken effect, or may still do so. Read before writing again."""


class Refused(ClientError):
    """The server refused the call. `code` is the gRPC status. `known` is the constant of `holdfast.status` that the
    server sent; None if it is another error."""

    def __init__(self, code: grpc.StatusCode, message: str, known: Known | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.known = known


class Compacted(Refused):
    """The requested history is compacted. Read the current state and watch from its revision."""


class OutOfScope(Refused):
    """The key is outside the prefixes of the edge replica."""


class NotImplementedThere(Refused):
    """The server does not know this method: it is not holdfast, or an older version."""


class SessionEnded(Refused):
    """The client session of a write has ended or cannot be used by this user; no earlier attempt was sent."""


def known_of(error: grpc.aio.AioRpcError) -> Known | None:
    """The constant of `holdfast.status` that the server sent; None if it is another error."""
    names = [str(value) for key, value in error.trailing_metadata() or () if key == NAME_METADATA]
    return known(error.code().value[0], error.details() or "", names[0] if names else "")


def refused(error: grpc.aio.AioRpcError) -> Refused:
    """The exception for an error that another endpoint would return, too."""
    return refusal(error.code(), error.details() or error.code().name, known_of(error))


def refusal(code: grpc.StatusCode, message: str, known: Known | None) -> Refused:
    """An exception of the class for `known`."""
    kind = Refused
    if known == COMPACTED:
        kind = Compacted
    elif known == OUTSIDE_PREFIXES:
        kind = OutOfScope
    elif known in _SESSION_OVER:
        kind = SessionEnded
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        kind = NotImplementedThere
    return kind(code, message, known)
