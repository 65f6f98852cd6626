"""What the simulator can run: the members with their clients, applications that use the recipes, or edge replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast_lab.sim.apps.mutants import RECIPE_MUTANTS
from holdfast_lab.sim.apps.run import APPS_SOMETIMES, AppsRun
from holdfast_lab.sim.cache_mutants import CACHE_MUTANTS
from holdfast_lab.sim.edges.mutants import EDGE_MUTANTS
from holdfast_lab.sim.edges.run import EDGES_SOMETIMES, EdgesRun
from holdfast_lab.sim.mutants import MUTANTS
from holdfast_lab.sim.mutation import Mutants
from holdfast_lab.sim.simulation import Run
from holdfast_lab.sim.sometimes import SOMETIMES


@dataclass(frozen=True, slots=True)
class Subject:
    """`make(seed, seconds=…, without=…, keep_trace=…)` is one run; `sometimes`: the states that some run must reach."""

    command: str  # that runs it
    make: Callable[..., Run]
    mutants: Mutants
    sometimes: tuple[str, ...]


MEMBERS, RECIPES, EDGES = "members", "recipes", "edges"
SUBJECTS = {
    MEMBERS: Subject("python -m holdfast_lab sim", Run, MUTANTS | CACHE_MUTANTS, SOMETIMES),
    RECIPES: Subject("python -m holdfast_lab sim --recipes", AppsRun, RECIPE_MUTANTS, APPS_SOMETIMES),
    EDGES: Subject("python -m holdfast_lab sim --edges", EdgesRun, EDGE_MUTANTS, EDGES_SOMETIMES),
}
