"""The simulated world by itself: it repeats, and a healthy cluster lives in it."""

from __future__ import annotations

from dataclasses import replace

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


def test_a_pool_takes_other_prefixes_and_other_relays() -> None:
    """sim/settled.py says what a pool looks like then, and sim/conduct.py how it gets there: one replica at a time."""
    shape = replace(HEALTHY, edges=3, configs=2, relays=1, tls=True)
    for seed in range(4):
        result = simulate(seed, shape=shape, events=("other_prefixes", "other_relays") * 2)
        assert result.violation is None
        assert result.reached["settled"] == 1
        assert result.reached["other prefixes"] + result.reached["other relays"] > 0


def test_a_cluster_rolls_and_scales() -> None:
    result = simulate(1, shape=HEALTHY, events=("new_version", "other_number", "new_version"))
    assert result.violation is None
    assert result.reached["settled"] == 1
