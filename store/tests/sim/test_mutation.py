"""A mutant names what it breaks by attributes of the production code; a rename must not wait for the long runs to be
noticed."""

from __future__ import annotations

import pytest
from holdfast_lab.sim.mutation import broken
from holdfast_lab.sim.subject import SUBJECTS


@pytest.mark.parametrize("of", SUBJECTS)
def test_every_mutant_changes_what_exists(of: str) -> None:
    for mutant in SUBJECTS[of].mutants.values():
        with broken(mutant):
            pass
