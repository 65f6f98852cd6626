"""The command of `holdfast exec` as a process: in a group of its own, which ends with it, and again when asked for.

Signals go to the command alone, as it knows best how to end what it started; what is left of its group once it has
ended is killed. Every child is waited for, those of others, too: as the first process of a container this process
inherits them.

A `Runner` is in one of these states. A stop signal is one of `_STOPS`; any other signal leaves the state as it is.

| state     | what holds                                    | a stop signal             | the command ends     |
|-----------|-----------------------------------------------|---------------------------|----------------------|
| WAITING   | the command has never run                     | OVER, with 128 + signal   | -                    |
| RUNNING   | the command runs                              | passed on, then STOPPING  | OVER, with its code  |
| REPLACING | it runs, and was told to end for a new one    | passed on, then STOPPING  | BETWEEN              |
| BETWEEN   | it has ended, and the new one is not started  | OVER, with its code       | -                    |
| STOPPING  | it runs, and nothing is started after it      | passed on                 | OVER, with its code  |
| OVER      | nothing runs, and nothing will                | ignored                   | -                    |

`start` leads from WAITING and BETWEEN to RUNNING, and `replace` from RUNNING to REPLACING. Another signal is passed on
to a command that runs; in WAITING it ends all as a stop signal does, except SIGWINCH and SIGCONT; in BETWEEN and OVER
it is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import Enum, auto

from holdfast.cli import guard

FORWARDED = tuple(
    signal.Signals[f"SIG{name}"] for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "ALRM", "CONT")
)
_STOPS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)  # after one of these nothing is started again


class State(Enum):
    """The table at the beginning of this module says what each of them means."""

    WAITING = auto()
    RUNNING = auto()
    REPLACING = auto()
    BETWEEN = auto()
    STOPPING = auto()
    OVER = auto()


class Child:
    """One run of the command."""

    def __init__(self, path: str, argv: Sequence[str], environment: Mapping[bytes, bytes]) -> None:
        keep = "keep" if b"LC_CTYPE" in environment else ""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), keep, path, *argv],
            env=environment,
            process_group=0,
        )
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: int) -> None:
        if not self.ended.done():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the whole group. It may be called until the process is waited for: until then its id is not reused."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Wait for the process, which has ended. Returns its exit code as a shell's."""
        self.kill()
        code = self._process.wait()
        self.ended.set_result(128 - code if code < 0 else code)
        return self.ended.result()


class Runner:
    """Runs the command, each time with another environment. `ended` has the exit code once all is over."""

    def __init__(self, path: str, argv: Sequence[str], grace: float) -> None:
        self._path = path
        self._argv = argv
        self._grace = grace
        self.child: Child | None = None
        self.newest: Mapping[bytes, bytes] | None = None  # the environment that is known, if the command has it or not
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._state = State.WAITING
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        for number in FORWARDED:
            loop.add_signal_handler(number, self._forward, number)

    def start(self, environment: Mapping[bytes, bytes]) -> None:
        if self._state in (State.WAITING, State.BETWEEN):
            self.child = Child(self._path, self._argv, environment)
            self._state = State.RUNNING

    async def replace(self, environment: Mapping[bytes, bytes]) -> None:
        """End the command, after `grace` seconds by force, and start it with this environment."""
        old = self.child
        if old is None or old.ended.done():
            return
        if self._state is State.RUNNING:
            self._state = State.REPLACING
        old.send(signal.SIGTERM)
        await asyncio.wait((old.ended,), timeout=self._grace)
        if not old.ended.done():
            old.kill()
            await asyncio.wait((old.ended,))
        self.start(environment)

    def close(self) -> None:
        """Leave no process behind, whatever has happened here."""
        if self.child is not None and not self.child.ended.done():
            self.child.kill()
            self.child.reap()

    def _forward(self, number: signal.Signals) -> None:
        stops = number in _STOPS
        if self.child is None:
            if number not in (signal.SIGWINCH, signal.SIGCONT):
                self._end(128 + number)
        elif self._state is State.BETWEEN:
            if stops:
                self._end(self.child.ended.result())
        elif self._state is not State.OVER:
            if stops:
                self._state = State.STOPPING
            self.child.send(number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if self.child is None or ended.si_pid != self.child.pid:
                    os.waitpid(ended.si_pid, 0)
                    continue
                code = self.child.reap()
                if self._state is State.REPLACING:
                    self._state = State.BETWEEN
                else:
                    self._end(code)

    def _end(self, code: int) -> None:
        self._state = State.OVER
        if not self.ended.done():
            self.ended.set_result(code)
