"""What can go wrong between cells. Each is a `ClientError`, so programs that handle those handle these."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.client.errors import ClientError


def each(errors: Mapping[str, object]) -> str:
    """What each of the cells said, for a message."""
    return "; ".join(
        str(why) if str(why).startswith(cell) else f"{cell}: {why}" for cell, why in sorted(errors.items())
    )


class CellsUnavailable(ClientError):
    """Too few cells answered, and nothing was changed. The message says of each why."""


class TransactionAborted(ClientError):
    """Nothing was changed, because another transaction was in the way. It may be tried again at once."""


class LeaseLost(ClientError):
    """The lease is not held any more: its time ran out, another one has taken it, or it was released."""


class QueueFull(ClientError):
    """The message was not sent: too many wait already."""


class NotSetUp(ClientError):
    """A cell does not know that it is one, or is one of another set; `Cells.set_up` sets it up."""


class ReplicationRefused(ClientError):
    """The destination gets keys with this prefix from elsewhere already."""


class ReplicationLoop(ReplicationRefused):
    """The data would come back to where it came from."""
