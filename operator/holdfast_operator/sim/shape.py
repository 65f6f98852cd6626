"""What a world is made of at first; a seed chooses it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

NAMESPACE = "d"
EDGE = {"tier": "edge"}


@dataclass(frozen=True, slots=True)
class Shape:
    voters: int
    tls: bool
    nodes: int  # for voters; those of the edge come after them
    edges: int
    zones: int
    configs: int
    local_volumes: bool
    diligence: float  # how often a controller does its work when it could
    cluster: str = "shop"
    relays: int = 0  # of the edges
    born_first: float = 0.8  # how likely events wait until the cluster is born

    def labels(self, number: int) -> dict[str, str]:
        return {"tier": "core"}

    def spec(self) -> dict[str, object]:
        return {
            "version": "0.1.0",
            "voters": {"replicas": self.voters, "placement": {"nodeSelector": {"tier": "core"}}},
            "tls": {"mode": "SelfManaged" if self.tls else "Disabled"},
        }


def shape_of(seed: int) -> Shape:
    rng = Random(f"{seed}/shape")
    voters = rng.choice((1, 3, 3, 3, 5))
    return Shape(
        voters=voters,
        tls=rng.random() < 0.2,
        nodes=voters + rng.choice((2, 2, 3)),
        edges=rng.choice((0, 0, 1, 3)),
        zones=rng.choice((1, 3)),
        configs=rng.choice((0, 1, 2)),
        local_volumes=rng.random() < 0.6,
        diligence=rng.choice((1.0, 0.8, 0.4)),
        relays=rng.choice((0, 1, 2)),
    )
