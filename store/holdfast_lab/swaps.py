"""`python -m holdfast_lab swaps`: a projection is killed at each step of its work, while readers look on.

Each swap is made by a process of its own. An audit hook of Python counts what it does to the file system, and kills it
with SIGKILL before one of these steps. Another process reads all the time, as a program that wants one state does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NoReturn

import typer
from holdfast.client.projection import DATA, Projection

FILES = 6
READ_SECONDS = 0.0005  # between reads: the reader is not to keep the writers from the processor
WHOLE = 5  # swaps in a row that are not killed, after one was killed at each step
_STEPS = ("open", "os.mkdir", "os.symlink", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree")


class Mixed(Exception):
    """A reader saw files of different states, or not all of one."""


@dataclass
class Seen:
    swaps: int = 0
    killed: Counter[str] = field(default_factory=Counter)  # by the step before which it was killed
    whole: int = 0  # swaps that were not killed
    reads: int = 0


def state(number: int) -> dict[bytes, bytes]:
    """A state whose files all hold its number; every other state has a file less."""
    return {b"/f%d" % n: b"%d" % number for n in range(FILES - number % 2)}


def read(directory: Path) -> int:
    """The number of the state that is published. It resolves `..data` once; if that has changed when it is done, its
    state may have been removed meanwhile, and it reads again. Raises Mixed."""
    while True:
        where = (directory / DATA).resolve()
        try:
            found = {path.name: path.read_bytes() for path in where.iterdir()}
        except FileNotFoundError:
            continue
        if (directory / DATA).resolve() == where:
            break
    number = int(found.get("f0", b"-1"))
    if found != {key[1:].decode(): value for key, value in state(number).items()}:
        raise Mixed(f"{found}")
    return number


def swap(directory: Path, seen: Seen, count: int) -> None:
    """Make `count` swaps, killed before one step after the other. Raises Mixed."""
    projection = Projection(directory, b"/")
    projection.write(state(0))
    steps = int(_forked(partial(_write, projection, state(1), None))[0])
    turn = 0
    mine, theirs = Pipe()
    reader = os.fork()
    if reader == 0:
        _read_on(directory, theirs)
    try:
        for number in range(2, count + 2):
            before = read(directory)
            at = turn if turn < steps else None
            turn = (turn + 1) % (steps + WHOLE)
            told = _forked(partial(_write, projection, state(number), at))
            now = read(directory)
            if now not in (before, number):
                raise Mixed(f"{before} was published, {number} written, and {now} is there")
            seen.swaps += 1
            if told[1]:
                seen.killed[told[1]] += 1
            else:
                seen.whole += 1
                steps = int(told[0])  # of the last in a row: without remains of others
                if now != number:
                    raise Mixed(f"{number} was written whole, and {now} is there")
    finally:
        mine.send("end")
        seen.reads, error = mine.recv()
        os.waitpid(reader, 0)
    if error:
        raise Mixed(error)
    projection.write(state(count + 2))
    shown = {name: (directory / name).read_bytes() for name in os.listdir(directory) if not name.startswith("..")}
    if shown != {key[1:].decode(): value for key, value in state(count + 2).items()}:
        raise Mixed(f"a write that was not killed left {shown}")


def _read_on(directory: Path, pipe: Connection) -> NoReturn:
    """Read until told to end, then tell how often, and what was wrong."""
    reads, error = 0, ""
    while not pipe.poll():
        try:
            read(directory)
        except Mixed as mixed:
            error = error or str(mixed)
        reads += 1
        time.sleep(READ_SECONDS)
    pipe.send((reads, error))
    os._exit(0)


def _forked(work: Callable[[int], None]) -> tuple[str, str]:
    """Do `work` in a process of its own. Returns the two words that it tells: how many steps, and where it was
    killed."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(into)
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as told:
        steps, _, where = told.read().decode().partition(" ")
    os.waitpid(pid, 0)
    return steps, where


def _write(projection: Projection, values: dict[bytes, bytes], at: int | None, tell: int) -> None:
    """Write, and be killed before step `at`."""
    steps = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal steps
        if event in _STEPS:
            if steps == at:
                os.write(tell, f"{steps} {event}".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1

    sys.addaudithook(hook)
    projection.write(values)
    os.write(tell, f"{steps} ".encode())


def swaps(
    swaps: Annotated[int, typer.Option(min=1, help="How many swaps.")] = 10_000,
) -> None:
    """Kill a projection at each step of its swaps, while a reader looks whether it ever sees a mix."""
    began, seen = time.monotonic(), Seen()
    with TemporaryDirectory(prefix="holdfast-swaps-") as directory:
        try:
            swap(Path(directory) / "d", seen, swaps)
        except Mixed as error:
            print(f"a mix after {seen.swaps} swaps: {error}")
            raise SystemExit(1) from None
    places = ", ".join(f"{step} {count}" for step, count in sorted(seen.killed.items()))
    print(f"{seen.swaps} swaps in {time.monotonic() - began:.0f} s, {seen.reads} reads, no mix")
    print(f"not killed {seen.whole}; killed before: {places}")
