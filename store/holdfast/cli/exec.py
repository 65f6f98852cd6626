"""`holdfast exec`: runs a command with the keys of a prefix as environment variables, and again when they change."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from holdfast import client
from holdfast.cli.child import Runner
from holdfast.cli.errors import fail, say
from holdfast.cli.guard import NOT_FOUND
from holdfast.cli.options import signal_number
from holdfast.cli.session import LOCAL, Endpoints, Timeout, TlsDir, User, run
from holdfast.client.cache import Cache
from holdfast.client.environment import NotVariables, variables

FIRST_SECONDS = 0.3  # for a server's first answer, if there is a file: with the start of Python, less than a second
RETRY_SECONDS = 10.0  # after the server refused to be followed


class OnChange(StrEnum):
    RESTART = "restart"
    SIGNAL = "signal"
    NONE = "none"


@dataclass(frozen=True)
class Source:
    """Where the variables come from, and what else is in the environment."""

    prefix: bytes
    file: Path | None
    max_age: float
    upcase: bool
    base: Mapping[bytes, bytes]

    async def cache(self, hf: client.Client, *, first: bool) -> Cache:
        cache = await hf.cache(self.prefix, file=self.file, first_seconds=FIRST_SECONDS)
        if first and cache.from_file and self.max_age and cache.age > self.max_age:
            await cache.close()
            raise client.Unavailable(
                f"no server answers, and what {self.file} holds may be {cache.age:.0f} s old, over --max-age"
            )
        return cache

    def environment(self, cache: Cache) -> dict[bytes, bytes]:
        """Raises NotVariables."""
        found = variables({key: cache[key].value for key in cache}, self.prefix, upcase=self.upcase)
        return {**self.base, **found}


@dataclass(frozen=True)
class Change:
    """What a change does."""

    action: OnChange
    signal: int
    settle: float


async def supervise(hf: client.Client, source: Source, change: Change, runner: Runner) -> int:
    """Run the command until it ends. Returns its exit code."""
    following = asyncio.ensure_future(_keep_following(hf, source, change, runner))
    try:
        await asyncio.wait((following, runner.ended), return_when=asyncio.FIRST_COMPLETED)
        if not runner.ended.done():
            await following  # raises: it never ends otherwise
        return runner.ended.result()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        runner.close()


async def _keep_following(hf: client.Client, source: Source, change: Change, runner: Runner) -> None:
    """A command that runs goes on whatever becomes of the servers, and of the rights to read there."""
    while True:
        try:
            async with await source.cache(hf, first=runner.child is None) as cache:
                await _follow(cache, source, change, runner)
        except client.ClientError as error:
            if runner.child is None:
                raise
            say(f"changes are not followed, and will be tried again: {error}")
        await asyncio.sleep(RETRY_SECONDS)


async def _follow(cache: Cache, source: Source, change: Change, runner: Runner) -> None:
    changes = cache.changes()
    while True:
        try:
            wanted = source.environment(cache)
        except NotVariables as error:
            if runner.child is None:
                raise
            say(f"the command keeps the values it has: {error}")
        else:
            if wanted != runner.newest:
                runner.newest = wanted
                _tell(cache)
                await _apply(wanted, change, runner)
        await anext(changes)
        await asyncio.sleep(change.settle)


async def _apply(wanted: dict[bytes, bytes], change: Change, runner: Runner) -> None:
    if runner.child is None:
        runner.start(wanted)
    elif change.action is OnChange.RESTART:
        await runner.replace(wanted)
    elif change.action is OnChange.SIGNAL:
        runner.child.send(change.signal)


def _tell(cache: Cache) -> None:
    source = f"the last good file, up to {cache.age:.0f} s old" if cache.from_file else "the cluster"
    say(f"{len(cache)} variables of revision {cache.revision}, from {source}")


def exec_(
    prefix: Annotated[str, typer.Argument(help="The keys; each is a variable, named by what follows the prefix.")],
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    file: Annotated[
        Path | None, typer.Option(help="File that keeps the newest values for a start while no server answers.")
    ] = None,
    max_age: Annotated[
        float, typer.Option(min=0, help="With --file: seconds; older values are not used at the start. 0: any age.")
    ] = 0.0,
    pristine: Annotated[
        bool, typer.Option("--pristine", help="Only the keys are in the environment, nothing of this command's own.")
    ] = False,
    upcase: Annotated[bool, typer.Option("--upcase/--no-upcase", help="Names in upper case.")] = True,
    on_change: Annotated[
        OnChange, typer.Option(help="restart: end the command and start it with the new values; signal: send --signal.")
    ] = OnChange.RESTART,
    signal_: Annotated[str, typer.Option("--signal", help="Signal of --on-change=signal.")] = "HUP",
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds between SIGTERM and SIGKILL when the command is restarted.")
    ] = 10.0,
    settle: Annotated[
        float, typer.Option(min=0, help="Seconds after a change in which further ones are taken together with it.")
    ] = 1.0,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Run COMMAND with the keys that begin with PREFIX as environment variables, and again when they change.

    The name of a variable is what follows the prefix, in upper case, with _ for each other character than A-Z, 0-9 and
    _. Signals are passed on to the command; the exit code is the command's, 128 + N if signal N ended it.
    """
    path = shutil.which(command[0])
    if path is None:
        fail(f"{command[0]}: there is no such command", NOT_FOUND)
    base = {} if pristine else dict(os.environb)
    source = Source(os.fsencode(prefix), file, max_age, upcase, base)
    change = Change(on_change, signal_number(signal_), settle)
    ended = []

    async def work(hf: client.Client) -> None:
        ended.append(await supervise(hf, source, change, Runner(path, command, grace)))

    run(endpoints, tls_dir, user, timeout, work)
    raise SystemExit(ended[0])
