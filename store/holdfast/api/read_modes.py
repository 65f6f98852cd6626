"""How fresh the data of a read has to be: by the metadata `holdfast-read` of the request.

    linearizable          everything that was acknowledged before the read began
    bounded=2s            everything that was acknowledged two seconds before it began
    at-least=f00d:17      everything up to revision 17 of the cluster with the id f00d
    local                 what the server has
    held                  the same, also if the replica is not to serve it now (`--offline`): to save it

Without it a serializable read is local, and any other linearizable. The answer's headers say what it is:
`holdfast-read` the mode, `holdfast-position` the cluster and revision, `holdfast-bound` how old the data can be
(`unknown` after a start). A replica sends them always, a member if the request says how fresh.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import Enum

from holdfast.client.position import Position
from holdfast.durations import seconds
from holdfast.front.calls import Call
from holdfast.status import BOUND_METADATA, POSITION_METADATA, READ_METADATA, Code, Refusal, RequestError

READ = READ_METADATA
NOWHERE = Position(0, 0)
REVISIONS = 10**18  # more than any cluster makes
SHOWN = 60  # characters of a malformed value


class Fresh(Enum):
    LINEARIZABLE = "linearizable"
    BOUNDED = "bounded"
    AT_LEAST = "at-least"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class ReadMode:
    """`seconds`: of BOUNDED. `position`: of AT_LEAST."""

    fresh: Fresh
    seconds: float = 0.0
    position: Position = NOWHERE
    held: bool = False  # with LOCAL: whatever is not to be served now

    def check_cluster(self, cluster_id: int) -> None:
        """Raise RequestError if the position is of another cluster."""
        if self.fresh is Fresh.AT_LEAST and self.position.cluster_id != cluster_id:
            text = f"the position is of cluster {self.position.cluster_id:x}, and this is {cluster_id:x}"
            raise RequestError(Refusal(Code.FAILED_PRECONDITION, f"holdfast: {READ}: {text}"))


LINEARIZABLE, LOCAL = ReadMode(Fresh.LINEARIZABLE), ReadMode(Fresh.LOCAL)
HELD = ReadMode(Fresh.LOCAL, held=True)


def mode_of(call: Call, *, serializable: bool) -> ReadMode:
    """Raises RequestError if the metadata is malformed."""
    asked = call.metadata.get(READ)
    if asked is None:
        return LOCAL if serializable else LINEARIZABLE
    kind, _, value = asked.partition("=")
    if asked == "linearizable":
        return LINEARIZABLE
    if asked == "local":
        return LOCAL
    if asked == "held":
        return HELD
    with contextlib.suppress(ValueError):
        if kind == "bounded":
            return ReadMode(Fresh.BOUNDED, seconds=seconds(value))
        if kind == "at-least" and (position := Position.parse(value)).revision < REVISIONS:
            return ReadMode(Fresh.AT_LEAST, position=position)
    raise RequestError(
        Refusal(
            Code.INVALID_ARGUMENT,
            f"holdfast: {READ}: {asked[:SHOWN]!r} is none of linearizable, local, held, bounded=DURATION (2s, 500ms), "
            "at-least=CLUSTER:REVISION (less than 10^18)",
        )
    )


def described(fresh: Fresh, cluster_id: int, revision: int, bound: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of an answer."""
    return (
        (READ.encode(), fresh.value.encode()),
        (POSITION_METADATA.encode(), str(Position(cluster_id, revision)).encode()),
        (BOUND_METADATA.encode(), bound.encode()),
    )
