"""What the simulator can run: the members with their clients, applications that use the recipes, edge replicas, or
several clusters that agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from holdfast_lab.sim.apps.mutants import RECIPE_MUTANTS
from holdfast_lab.sim.apps.run import APPS_SOMETIMES, AppsRun
from holdfast_lab.sim.cache_mutants import CACHE_MUTANTS
from holdfast_lab.sim.cells.mutants import CELLS_MUTANTS
from holdfast_lab.sim.cells.run import CELLS_SOMETIMES, CellsRun
from holdfast_lab.sim.edges.mutants import EDGE_MUTANTS
from holdfast_lab.sim.edges.run import EDGES_SOMETIMES, EdgesRun
from holdfast_lab.sim.mutants import MUTANTS
from holdfast_lab.sim.mutation import Mutants
from holdfast_lab.sim.replications.mutants import REPLICATION_MUTANTS
from holdfast_lab.sim.replications.run import REPLICATIONS_SOMETIMES, ReplicationRun
from holdfast_lab.sim.simulation import Result, Run
from holdfast_lab.sim.sometimes import SOMETIMES
from holdfast_lab.sim.world import World


class Runnable(Protocol):
    @property
    def steps(self) -> int: ...

    @property
    def world(self) -> World: ...

    def run(self) -> Result: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """`make(seed, seconds=…, without=…, keep_trace=…)` is one run; `sometimes`: the states that some run must reach."""

    command: str  # that runs it
    make: Callable[..., Runnable]
    mutants: Mutants
    sometimes: tuple[str, ...]


MEMBERS, RECIPES, EDGES, CELLS, REPLICATIONS = "members", "recipes", "edges", "cells", "replications"
SUBJECTS = {
    MEMBERS: Subject("python -m holdfast_lab sim", Run, MUTANTS | CACHE_MUTANTS, SOMETIMES),
    RECIPES: Subject("python -m holdfast_lab sim --recipes", AppsRun, RECIPE_MUTANTS, APPS_SOMETIMES),
    EDGES: Subject("python -m holdfast_lab sim --edges", EdgesRun, EDGE_MUTANTS, EDGES_SOMETIMES),
    CELLS: Subject("python -m holdfast_lab sim --cells", CellsRun, CELLS_MUTANTS, CELLS_SOMETIMES),
    REPLICATIONS: Subject(
        "python -m holdfast_lab sim --replications", ReplicationRun, REPLICATION_MUTANTS, REPLICATIONS_SOMETIMES
    ),
}
