"""The faults of one run, and their rates. They are drawn from the seed: each class of fault is in the run or not
("swarm testing"), because runs with few classes of frequent faults reach more than runs with all classes at once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

MS = 1_000_000
SECOND = 1000 * MS


@dataclass(slots=True)
class Mix:
    """One run's parameters. Rates are per simulated second and cluster; the rest are probabilities per occasion."""

    voters: int = 3
    learners: int = 0
    replicas: int = 1
    clients: int = 6
    # network, per message
    drop: float = 0.0
    duplicate: float = 0.0
    replay: float = 0.0  # a copy that arrives seconds later
    slow: float = 0.0
    delay_ns: int = 1 * MS  # mean of a healthy link
    queue: int = 10_000  # messages on a link before it drops them
    # network, rates
    partition: float = 0.0
    one_way: float = 0.0
    isolate: float = 0.0
    chain: float = 0.0
    clog: float = 0.0
    swizzle: float = 0.0
    reset: float = 0.0
    # disk
    slow_sync: float = 0.0  # per sync
    sync_error: float = 0.0  # rates from here on
    rot: float = 0.0
    full: float = 0.0
    lose_disk: float = 0.0
    flush: float = 0.4
    # process and clock
    crash: float = 0.0
    crash_all: float = 0.0
    crash_loop: float = 0.0
    pause: float = 0.0
    skew: bool = False
    clock_jump: float = 0.0
    wall_jump: float = 0.0
    lease_reads: bool = False
    # membership and clients
    transfer: float = 0.0
    change: float = 0.0
    compact: float = 0.0
    hints: bool = True  # connections that close are noticed
    priorities: bool = False
    checkpoints: bool = False  # of leases, every two seconds
    late_answers: float = 0.0
    silence: float = 0.0  # a member that no message reaches for long, and no connection closes
    rolling: bool = False  # members begin at the previous level, and have this one after a restart
    forge: float = 0.0  # messages of non-members, and malformed ones of members (sim.forger)
    state_rot: float = 0.0  # rows of a member's state become unreadable (sim.rot)
    torn_snapshot: float = 0.0  # per transfer: what arrives is damaged, or does not match its header
    misuse: float = 0.0  # per command in a session: its number is used for another command, too
    sequences: float = 0.0  # of all puts: PutSequential instead
    caches: int = 0  # clients that cache consistently
    # sizes: small values, so that limits are reached often
    window: int = 256  # messages that a leader sends ahead
    message_bytes: int = 1 << 20
    keep_entries: int = 12  # of the log


# Class of fault -> range of its values. One draw decides whether the class is in this run.
_FAULTS: dict[str, tuple[float, float]] = {
    "drop": (0.01, 0.2),
    "duplicate": (0.01, 0.2),
    "replay": (0.002, 0.02),
    "slow": (0.02, 0.2),
    "partition": (0.05, 0.25),
    "one_way": (0.05, 0.2),
    "isolate": (0.05, 0.2),
    "chain": (0.03, 0.1),
    "clog": (0.05, 0.3),
    "swizzle": (0.05, 0.2),
    "reset": (0.1, 1.0),
    "slow_sync": (0.01, 0.1),
    "sync_error": (0.02, 0.1),
    "rot": (0.01, 0.05),
    "full": (0.02, 0.1),
    "lose_disk": (0.01, 0.04),
    "crash": (0.1, 0.5),
    "crash_all": (0.01, 0.04),
    "crash_loop": (0.01, 0.05),
    "pause": (0.05, 0.3),
    "clock_jump": (0.05, 0.2),
    "wall_jump": (0.1, 0.5),
    "transfer": (0.05, 0.3),
    "change": (0.05, 0.3),
    "compact": (0.1, 0.5),
    "silence": (0.02, 0.06),
    "late_answers": (0.05, 0.3),
}
# Drawn after all others, so that adding these did not change what the seeds draw for the others.
_LATER: dict[str, tuple[float, float]] = {
    "forge": (0.5, 8.0),
    "state_rot": (0.02, 0.08),
    "torn_snapshot": (0.1, 0.4),
    "misuse": (0.05, 0.3),
    "sequences": (0.1, 0.5),
}
# Faults that reveal certain defects only together, and are seldom drawn together by chance.
_THEMES: tuple[tuple[str, ...], ...] = (
    ("replay", "slow", "late_answers", "swizzle", "transfer"),  # late messages to or from an earlier leader
    ("replay", "duplicate", "slow", "crash", "reset"),  # answers to requests from before a restart
    ("lease_reads", "skew", "one_way", "isolate", "transfer"),  # an old leader answers reads while one is elected
)
CLASSES = (*_FAULTS, *_LATER, "caches", "skew", "priorities", "lease_reads", "queue", "checkpoints", "sizes", "rolling")


def draw(chance: Random, without: Collection[str] = ()) -> Mix:
    """The mix of one seed. `without` takes classes out of it and leaves all other draws as they are."""
    mix = Mix()
    mix.voters = chance.choices((1, 2, 3, 4, 5, 6, 7), (4, 4, 62, 6, 18, 2, 4))[0]
    mix.learners = int(chance.random() < 0.2)
    mix.replicas = chance.choices((0, 1, 2), (3, 6, 1))[0]
    mix.delay_ns = int(chance.choice((0.2, 0.5, 1, 2, 10)) * MS)
    for name, (low, high) in _FAULTS.items():
        within, value = chance.random() < 0.4, low + (high - low) * chance.random() ** 2
        if within and name not in without:
            setattr(mix, name, value)
    draws = {
        "skew": 0.4,
        "priorities": 0.15,
        "lease_reads": 0.2,
        "queue": 0.2,
        "checkpoints": 0.3,
        "sizes": 0.5,
        "rolling": 0.2,
    }
    chosen = {name: chance.random() < p and name not in without for name, p in draws.items()}
    mix.skew, mix.priorities, mix.lease_reads = chosen["skew"], chosen["priorities"], chosen["lease_reads"]
    mix.checkpoints = chosen["checkpoints"]
    mix.rolling = chosen["rolling"]
    if chosen["queue"]:
        mix.queue = 20
    sizes = chance.choice((1, 2, 3, 8)), chance.choice((60, 120, 400, 4000)), chance.choice((2, 5, 12, 60))
    if chosen["sizes"]:
        mix.window, mix.message_bytes, mix.keep_entries = sizes
    themed = chance.random() < 0.35
    if themed:
        _together(mix, chance.choice(_THEMES), without)
    if mix.lease_reads:
        mix.clock_jump = 0.0  # lease reads do not promise anything for clocks that jump
    if not any(
        getattr(mix, name)
        for name in ("crash", "partition", "isolate", "pause", "one_way", "chain", "swizzle", "silence")
    ):
        mix.crash = 0.2  # something has to happen in every run
    for name, (low, high) in _LATER.items():
        within, value = chance.random() < 0.3, low + (high - low) * chance.random() ** 2
        if within and name not in without:
            setattr(mix, name, value)
    caches = chance.choice((2, 4, 8)) if chance.random() < 0.25 and "caches" not in without else 0
    if themed:
        mix.sequences = 0.0  # they would move what the theme brings together, and the rarest mutants would be missed
    elif not mix.clock_jump:
        mix.caches = caches  # as lease reads, they promise nothing for clocks that jump
    return mix


def _together(mix: Mix, theme: Collection[str], without: Collection[str]) -> None:
    for name in theme:
        if name not in without:
            setattr(mix, name, sum(_FAULTS[name]) / 2 if name in _FAULTS else True)
