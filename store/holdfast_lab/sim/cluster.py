"""The interface of the simulated cluster that fault injectors use."""

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
        """Whether this member's disk has lost nothing and has no damage."""
        ...

    def new_node(self) -> Node:
        """A new empty node, with an id that was never used."""
        ...

    def rate(self, draw_: float) -> float:
        """The rate of a skewed clock, from a draw between 0 and 1."""
        ...
