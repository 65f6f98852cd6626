"""The operator broken on purpose, one rule for each mutant, to show that the simulated world notices.

Each mutant is a patch that is applied and reverted here; the operator does not know of it. A mutant that no seed finds
is a gap of the world, not a harmless change.
"""

from holdfast_operator.sim.mutants import planner, reconcilers
from holdfast_operator.sim.mutants.table import MUTANTS, Mutant, broken

__all__ = ["MUTANTS", "Mutant", "broken", "planner", "reconcilers"]
