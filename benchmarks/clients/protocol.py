"""What a load program is told and what it answers. Only the standard library: it also runs where holdfast is not.

A program makes `--clients` clients of all `--endpoints`, and as many more as `--watches`, each with one watch of
WATCHED. It writes "ready" when all are connected, then begins `--rate` reads a second of READ for `--seconds`, each at
its due time whether or not earlier ones have ended, goes on watching for LINGER_SECONDS, and writes one JSON object.
All times are those of the system's clock, which all processes share.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field

READ = "bench/read"
WATCHED = "bench/watched"
LINGER_SECONDS = 5.0


@dataclass(frozen=True)
class Options:
    endpoints: list[str]
    rate: float
    seconds: float
    clients: int
    watches: int
    serializable: bool
    hedge: bool
    timeout: float  # of each read, in seconds

    def words(self) -> list[str]:
        """As the arguments of a load program; the one in Go understands them, too."""
        return [
            f"--endpoints={','.join(self.endpoints)}",
            f"--rate={self.rate:g}",
            f"--seconds={self.seconds:g}",
            f"--clients={self.clients}",
            f"--watches={self.watches}",
            f"--serializable={str(self.serializable).lower()}",
            f"--hedge={str(self.hedge).lower()}",
            f"--timeout={self.timeout:g}",
        ]


def parse(words: list[str] | None = None) -> Options:
    def boolean(text: str) -> bool:
        if text not in ("true", "false"):
            raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
        return text == "true"

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--endpoints", required=True, type=lambda text: text.split(","))
    parser.add_argument("--rate", required=True, type=float)
    parser.add_argument("--seconds", required=True, type=float)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--watches", type=int, default=0)
    parser.add_argument("--serializable", type=boolean, default=False)
    parser.add_argument("--hedge", type=boolean, default=True)
    parser.add_argument("--timeout", type=float, default=10.0)
    return Options(**vars(parser.parse_args(words)))


@dataclass
class Recorded:
    """What became of the load."""

    reads: list[tuple[float, float]] = field(default_factory=list)  # due at, seconds from then to the answer
    failures: list[tuple[float, str]] = field(default_factory=list)  # due at, the error
    late: float = 0.0  # the most that a read began after it was due: what the generator itself adds
    attempts: int = 0  # of reads, the first of each included; 0: the library does not count them
    cpu: float = 0.0  # seconds of the processor that the program used while it read
    watches: list[list[tuple[str, float]]] = field(default_factory=list)  # of each watch: the value, heard at

    def text(self) -> str:
        return json.dumps(asdict(self))


def recorded(text: str) -> Recorded:
    found = json.loads(text)
    return Recorded(
        reads=[(at, took) for at, took in found["reads"]],
        failures=[(at, error) for at, error in found["failures"]],
        late=found["late"],
        attempts=found["attempts"],
        cpu=found["cpu"],
        watches=[[(value, at) for value, at in events] for events in found["watches"]],
    )
