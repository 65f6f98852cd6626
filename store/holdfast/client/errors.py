"""What can go wrong, by what the caller can do about it."""

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
    """No endpoint answered in time. What was asked for did not happen."""


class OutcomeUnknown(ClientError):
    """A write was sent and no answer came: it may have happened, or may yet. Read before writing again."""


class Refused(ClientError):
    """The server understood and refused. `code` is the gRPC status; `known` is the constant of `holdfast.status` that
    the server sent, None if it is none of them."""

    def __init__(self, code: grpc.StatusCode, message: str, known: Known | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.known = known


class Compacted(Refused):
    """The history asked for is gone. Read the present state and watch from there."""


class OutOfScope(Refused):
    """The key is not among the prefixes of the edge replica that was asked."""


class NotImplementedThere(Refused):
    """The server does not know this call: it is no holdfast, or an older one."""


class SessionEnded(Refused):
    """The client session that named a write has ended or cannot be used by this user, and nothing was sent before."""


def known_of(error: grpc.aio.AioRpcError) -> Known | None:
    """The constant of `holdfast.status` that the server sent, None if it is none of them."""
    names = [str(value) for key, value in error.trailing_metadata() or () if key == NAME_METADATA]
    return known(error.code().value[0], error.details() or "", names[0] if names else "")


def refused(error: grpc.aio.AioRpcError) -> Refused:
    """The error for a status that trying elsewhere would not change."""
    return refusal(error.code(), error.details() or error.code().name, known_of(error))


def refusal(code: grpc.StatusCode, message: str, known: Known | None) -> Refused:
    """The error of the class that stands for `known`."""
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
