"""A replica as what others follow: adapts it to `edge.upstream.Source`."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.edge.core import ReplicaCore
from holdfast.edge.lineage import Lineage
from holdfast.kv.space import KeySpace
from holdfast.proto import holdfast_pb2
from holdfast.watch.hub import Hub


class ReplicaSource:
    """`poke` wakes the driver: the hub has work to do."""

    def __init__(self, core: ReplicaCore, hub: Hub, poke: Callable[[], None]) -> None:
        self._core = core
        self._poke = poke
        self.hub = hub

    @property
    def lineage(self) -> Lineage:
        return self._core.position.lineage

    @property
    def term(self) -> int:
        return self._core.position.term

    @property
    def users(self) -> bool:
        return self._core.rights.users

    @property
    def rights(self) -> bytes:
        return self._core.rights.frame

    @property
    def path(self) -> holdfast_pb2.FollowPath:
        return self._core.path

    @property
    def space(self) -> KeySpace:
        return self._core.space

    def poke(self) -> None:
        self._poke()
