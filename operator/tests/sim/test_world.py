"""The simulated world by itself: it repeats, a healthy cluster lives in it, and its invariants notice what is wrong."""

from __future__ import annotations

import pytest
from holdfast_operator import objects
from holdfast_operator.plan import roll, volumes
from holdfast_operator.sim.shape import Shape
from holdfast_operator.sim.simulation import simulate

HEALTHY = Shape(
    voters=3, tls=False, nodes=5, edges=0, zones=1, configs=0, local_volumes=True, diligence=1.0, cluster="shop"
)


def test_a_seed_repeats_exactly() -> None:
    first, second = (simulate(11, keep=True) for _ in range(2))
    assert first.lines == second.lines
    assert len(first.lines) > 20


def test_a_cluster_is_born_and_settles() -> None:
    result = simulate(1, shape=HEALTHY, events=())
    assert result.violation is None
    assert result.reached["settled"] == 1


def test_a_cluster_rolls_and_scales() -> None:
    result = simulate(1, shape=HEALTHY, events=("new_version", "other_number", "new_version"))
    assert result.violation is None
    assert result.reached["settled"] == 1


BROKEN = [
    # A pod is deleted although the voters need it.
    (roll, "can_spare", True, ("image_typo", "kubelet_says_unready"), "keeps the majority"),
    # A volume of another cluster counts as one of a removed member.
    (volumes, "was_removed", True, ("foreign_volume",), "deletes no member's volume"),
    # Objects of others are taken over.
    (objects, "check_owner", None, ("name_is_taken",), "touches only its own"),
    # An object counts as unlike the wanted one although it is like it.
    (objects, "is_applied", False, (), "settled costs no write"),
    # An object counts as wanted whatever it is like.
    (objects, "is_applied", True, ("change_child",), "reaches the wanted state"),
]


@pytest.mark.parametrize(("module", "name", "answer", "events", "invariant"), BROKEN)
def test_a_broken_rule_is_found(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, answer: object, events: tuple[str, ...], invariant: str
) -> None:
    """Each rule is broken by a fixed answer; with these events some seed shows the invariant that it guards."""
    monkeypatch.setattr(module, name, lambda *_: answer)
    found = {
        result.violation[0] for seed in range(6) if (result := simulate(seed, shape=HEALTHY, events=events)).violation
    }
    assert invariant in found
