"""A program in a process of its own that is killed with -9 and started again: so it stops at any step."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections.abc import Callable
from random import Random

from holdfast_lab.sim.violation import check

_lives = itertools.count(1)


class Program:
    """`python -m MODULE WORDS`. `words`: from the number of its life, which grows over all programs. `heard` gets each
    line that it prints."""

    def __init__(self, module: str, words: Callable[[int], list[str]], heard: Callable[[str], None]) -> None:
        self.module = module
        self.life = 0
        self._words = words
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False

    async def run(self) -> None:
        """Until it is told to stop, or exits with 0. It must not end in any other way by itself: Violation."""
        self._stopped = False
        while not self._stopped:
            self.life = next(_lives)
            status = await self._live(["-m", self.module, *self._words(self.life)])
            if status == 0:
                return
            check(status == -signal.SIGKILL, "crash", f"{self.module} ended by itself with {status}")

    async def _live(self, arguments: list[str]) -> int:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=pipe)
        self._process = process
        if self._stopped:
            process.kill()
        try:
            assert process.stdout is not None
            async for line in process.stdout:  # also what it printed before it was killed
                self._heard(line.decode().strip())
            return await process.wait()
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()
                await process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def kill(self) -> bool:
        """kill -9. False: it is not running."""
        if self._process is None or self._process.returncode is not None:
            return False
        self._process.kill()
        return True

    def stop(self) -> None:
        """kill -9, for good: `run` returns when all that it printed is read."""
        self._stopped = True
        self.kill()


async def kill_one(programs: list[Program], chance: Random, killed: Callable[[Program], None] = lambda _: None) -> None:
    """Any of them, which comes back."""
    program = chance.choice(programs)
    if program.kill():
        killed(program)
