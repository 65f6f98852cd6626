"""How far into the history of a cluster a client has seen, so that its reads never go back.

A serializable read is answered by any server from what it has, and servers differ: the next one may be a little behind.
With a position, an answer that is older than what was seen is not taken, and the read goes on to the next server. A
position can be given to another process, which then sees at least as much.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from holdfast.proto import rpc_pb2


class Position(NamedTuple):
    """A revision of one cluster. Its text is `<cluster id, hex>:<revision>`."""

    cluster_id: int
    revision: int

    def __str__(self) -> str:
        return f"{self.cluster_id:x}:{self.revision}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises ValueError."""
        found = re.fullmatch(r"([0-9a-f]{1,16}):([0-9]{1,19})", text)
        if found is None:
            raise ValueError(f"{text!r} is no position: it is the cluster's id in hex, a colon, and a revision")
        return cls(int(found[1], 16), int(found[2]))


class Seen:
    """The newest position that a client has seen. `floor`: whether its serializable reads have to be as new."""

    def __init__(self, *, floor: bool) -> None:
        self.floor = floor
        self.position = Position(0, 0)

    def note(self, header: rpc_pb2.ResponseHeader) -> None:
        """A server has answered with this header. Another cluster at the same address begins anew."""
        if header.cluster_id != self.position.cluster_id:
            if header.cluster_id:
                self.position = Position(header.cluster_id, header.revision)
        elif header.revision > self.position.revision:
            self.position = Position(header.cluster_id, header.revision)

    def require(self, position: Position) -> None:
        """Reads have to be as new as `position`, too. Raises ValueError if it is of another cluster than was seen."""
        if self.position.cluster_id not in (0, position.cluster_id):
            raise ValueError(
                f"the position {position} is of the cluster {position.cluster_id:x}, and this client has read from "
                f"{self.position.cluster_id:x}"
            )
        self.floor = True
        self.position = max(self.position, position)

    def has(self, revision: int) -> bool:
        """Whether there is a server that has this revision, so that reads of it have to be answered."""
        return self.floor and revision <= self.position.revision

    def is_behind(self, header: rpc_pb2.ResponseHeader) -> bool:
        """Whether an answer is older than what was seen. One of another cluster is not: it cannot be compared."""
        return self.floor and header.cluster_id == self.position.cluster_id and header.revision < self.position.revision
