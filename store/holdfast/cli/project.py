"""`holdfast project`: keeps the files of a directory like the keys of a prefix, for programs that read files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from holdfast import client
from holdfast.cli.errors import fail, say
from holdfast.cli.options import signal_number
from holdfast.cli.session import LOCAL, Endpoints, Timeout, TlsDir, User, run
from holdfast.cli.tell import Tell
from holdfast.client.cache import Cache
from holdfast.client.projection import Projection, Unfit

RETRY_SECONDS = 1.0  # before a write that failed is tried again; doubled each time
CHECK_SECONDS = 30.0  # the longest pause between retries, and between looks for what somebody else changed or removed


def project(
    prefix: Annotated[str, typer.Argument(help="The keys; each is a file, named by what follows the prefix.")],
    directory: Annotated[Path, typer.Argument(help="The directory. Other files in it are left alone.")],
    last_good: Annotated[
        Path | None, typer.Option(help="File that keeps the newest state for a start while no server answers.")
    ] = None,
    max_age: Annotated[
        float, typer.Option(help="With --last-good: seconds; an older state is not used at the start. 0: any age.")
    ] = 0.0,
    mode: Annotated[str, typer.Option(help="Mode of the files, octal.")] = "644",
    signal_: Annotated[str, typer.Option("--signal", help="Signal to send after a change, to --pid-file.")] = "HUP",
    pid_file: Annotated[Path | None, typer.Option(help="File with the id of the process to signal.")] = None,
    command: Annotated[str, typer.Option("--exec", help="Command to run after a change.")] = "",
    exec_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which the command of --exec is ended, with its process group.")
    ] = 30.0,
    http: Annotated[str, typer.Option(help="URL to POST to after a change.")] = "",
    once: Annotated[bool, typer.Option("--once", help="Write the files once, and end.")] = False,
    endpoints: Endpoints = LOCAL,
    tls_dir: TlsDir = None,
    user: User = "",
    timeout: Timeout = 10.0,
) -> None:
    """Keep the files of DIRECTORY like the keys that begin with PREFIX, all of them at once, and tell a program."""
    projection = Projection(directory, os.fsencode(prefix), _mode(mode))
    tell = Tell(signal_number(signal_), pid_file, tuple(shlex.split(command)), exec_timeout, http)

    async def work(hf: client.Client) -> None:
        async with await hf.cache(os.fsencode(prefix), file=last_good) as cache:
            if cache.from_file and max_age and cache.age > max_age:
                raise client.Unavailable(
                    f"no server answers, and what {last_good} holds may be {cache.age:.0f} s old, over --max-age"
                )
            await follow(cache, projection, tell, once=once)

    run(endpoints, tls_dir, user, timeout, work)


async def follow(
    cache: Cache, projection: Projection, tell: Tell, *, once: bool, check_seconds: float = CHECK_SECONDS
) -> None:
    """Write the state of the cache, and each later one. Keys that cannot be files leave the files as they were. Without
    a change the state is written again after a pause: the write before may have failed, and others may have removed
    what is there."""
    changes = cache.changes()
    first, said, retry = True, "", RETRY_SECONDS
    while True:
        pause = check_seconds
        try:
            await _write(cache, projection)
            await _tell(projection, tell)
        except (Unfit, OSError) as error:
            if first:
                raise client.Unavailable(str(error)) from None
            if str(error) != said:
                said = str(error)
                say(f"the files stay as they were: {said}")
            pause = min(retry, check_seconds)
            retry = 2 * pause
        else:
            said, retry = "", RETRY_SECONDS
        first = False
        if once:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await anext(changes)
                said, retry = "", RETRY_SECONDS


async def _write(cache: Cache, projection: Projection) -> None:
    revision, values = cache.revision, {key: cache[key].value for key in cache}
    if await asyncio.to_thread(projection.write, values):
        source = f"the last good file, up to {cache.age:.0f} s old" if cache.from_file else "the cluster"
        say(f"{len(values)} files of revision {revision}, from {source}")


async def _tell(projection: Projection, tell: Tell) -> None:
    """Tell the program if it was not told of these files, by this process or by one before."""
    if projection.untold():
        await tell.now()
    try:
        projection.mark_told()
    except OSError as error:
        say(f"the program will be told once more after a restart, as it cannot be recorded that it was: {error}")


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        fail(f"--mode={text}: write three octal digits, such as 640")
    return mode
