"""The simulated cluster as those see it that make trouble in it."""

from __future__ import annotations

from typing import Protocol

from holdfast_lab.sim.checker import Checker
from holdfast_lab.sim.ledger import RequestLedger
from holdfast_lab.sim.mix import Mix
from holdfast_lab.sim.network import Network
from holdfast_lab.sim.node import Node
from holdfast_lab.sim.world import World


class Cluster(Protocol):
    """All parts of one run."""

    world: World
    mix: Mix
    nodes: dict[int, Node]
    network: Network
    ledger: RequestLedger
    checker: Checker

    def intact(self, member: int) -> bool:
        """Whether nothing that this member has on its disk is lost or damaged."""
        ...

    def new_node(self) -> Node:
        """An empty one, under an id that was never used."""
        ...

    def rate(self, draw_: float) -> float:
        """How fast a skewed clock runs, by a draw from 0 to 1."""
        ...
