"""What happens to messages between programs and simulated cells."""

from __future__ import annotations

import random

SLOW_SECONDS = 8.0  # after which a slow request arrives


class Weather:
    """`calm`: nothing bad happens any more."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.lost = chance.choice((0.0, 0.01, 0.05))
        self.slow = chance.choice((0.0, 0.01, 0.05))
        self.twice = chance.choice((0.0, 0.02))
        self.calm = False

    def happens(self, probability: float) -> bool:
        return not self.calm and self.chance.random() < probability

    def delay(self) -> float:
        if self.happens(self.slow):
            return self.chance.uniform(0.0, SLOW_SECONDS)
        return self.chance.uniform(0.001, 0.05)
