"""How `holdfast project` tells a program that its files have changed."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shlex
import signal
import sys
import urllib.request
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from holdfast.cli.errors import say

HTTP_SECONDS = 30.0
GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
_PID_BYTES = 64  # of a file are read; a number has far fewer
_LARGEST_PID = 2**31 - 1


@dataclass(frozen=True)
class Tell:
    """`seconds`: how long the command may take."""

    signal: int = 0
    pid_file: Path | None = None
    command: tuple[str, ...] = ()
    seconds: float = 30.0
    url: str = ""

    async def now(self) -> None:
        """Tell it in each way that was asked for. Failures are printed; of the next change it is told anyway."""
        if self.pid_file is not None:
            await self._try(f"--pid-file {self.pid_file}", asyncio.to_thread(_send, self.pid_file, self.signal))
        if self.command:
            await self._try(shlex.join(self.command), self._run())
        if self.url:
            await self._try(self.url, asyncio.to_thread(_post, self.url))

    async def _try(self, way: str, telling: Awaitable[None]) -> None:
        try:
            await telling
        except (OSError, ValueError, http.client.HTTPException) as error:
            say(f"the program could not be told by {way}: {error!r}")

    async def _run(self) -> None:
        shown = shlex.join(self.command)
        process = await asyncio.create_subprocess_exec(*self.command, stdout=sys.stderr, process_group=0)
        try:
            async with asyncio.timeout(self.seconds):
                if await process.wait():
                    say(f"{shown} ended with {process.returncode}")
        except TimeoutError:
            say(f"{shown} did not end within {self.seconds:g} s, and is ended: --exec-timeout gives it more")
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_SECONDS):
                    await process.wait()
        finally:
            _signal_group(process, signal.SIGKILL)  # and what it has started
            await process.wait()


def _send(pid_file: Path, number: int) -> None:
    """Raises ValueError for what is no id of one process: to kill(2), 0 and -1 are groups, or all that there is."""
    with pid_file.open("rb") as opened:
        text = opened.read(_PID_BYTES).strip()
    if not text.isdigit() or not 0 < int(text) <= _LARGEST_PID:
        raise ValueError(f"it has to hold the id of a process, a number over 0, and holds {text!r}")
    os.kill(int(text), number)


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _post(url: str) -> None:
    request = urllib.request.Request(url, data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=HTTP_SECONDS):
        pass
