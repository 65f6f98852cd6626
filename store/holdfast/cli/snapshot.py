"""`holdfast snapshot save|status|restore`: the whole of a cluster's data as one file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

import typer

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.serve import parse_urls
from holdfast.cli.session import LOCAL, Endpoints, Output, Timeout, TlsDir, User, as_json, check_output, run, table

snapshot = typer.Typer(help="Saving the data, and making a cluster of it again.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The snapshot.", show_default=False)]


@snapshot.command()
def save(
    file: File, endpoints: Endpoints = LOCAL, tls_dir: TlsDir = None, user: User = "", timeout: Timeout = 60.0
) -> None:
    """Save the state of the first endpoint to FILE. Its end is the SHA-256 of what is before."""

    async def work(hf: client.Client) -> None:
        fresh = file.with_name(file.name + ".part")
        sum_, last, size = hashlib.sha256(), b"", 0
        fresh.touch()
        fresh.chmod(0o600)  # whatever the umask, and before there is anything in it
        try:
            with fresh.open("wb") as target:
                async for blob in hf.snapshot():
                    sum_.update(last)
                    last = blob
                    target.write(blob)
                    size += len(blob)
                target.flush()
                os.fsync(target.fileno())
            if last != sum_.digest():
                fail("the snapshot arrived damaged; try again")
            fresh.replace(file)
        finally:
            fresh.unlink(missing_ok=True)
        print(f"{size} bytes saved to {file}")

    run(endpoints, tls_dir, user, timeout, work)


@snapshot.command()
def status(file: File, output: Output = "table") -> None:
    """Check FILE, and say of what it is."""
    check_output(output)
    from holdfast.storage.archive import ArchiveError, verify

    try:
        manifest = verify(file)
    except ArchiveError as error:
        fail(str(error))
    row: dict[str, object] = {
        "cluster": f"{manifest.cluster_id:x}",
        "epoch": manifest.epoch,
        "revision": manifest.revision,
        "index": manifest.index,
        "term": manifest.term,
        "bytes": file.stat().st_size,
    }
    if output == "json":
        as_json(row)
    else:
        table([name.upper() for name in row], [list(row.values())])


@snapshot.command()
def restore(
    file: File,
    data_dir: Annotated[Path, typer.Option(help="Where the new member is to keep its data; empty now.")],
    name: Annotated[str, typer.Option(help="What it is called.")] = "default",
    initial_advertise_peer_urls: Annotated[
        str, typer.Option(help="Where other members will reach it.")
    ] = "http://localhost:2380",
    keep_revisions: Annotated[
        bool,
        typer.Option(
            help="Let revisions go on where the snapshot ends. Only if no client remembers what came after: who does "
            "misses changes."
        ),
    ] = False,
) -> None:
    """Make a new cluster of one member with the data in FILE; others join it by `member add`.

    Start it with `holdfast serve` and the same --data-dir, --name and URLs.
    """
    try:
        from holdfast.member.restore import BUMP, RestoreRefused
        from holdfast.member.restore import restore as make
        from holdfast.storage.archive import ArchiveError
        from holdfast.storage.damage import DAMAGE
        from holdfast.storage.files import PRIVATE_UMASK
        from holdfast.storage.identity import DataDirectoryError
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; restoring needs it: pip install 'holdfast[server]'")
    os.umask(PRIVATE_UMASK)
    try:
        urls = parse_urls(initial_advertise_peer_urls)
        manifest = make(file, data_dir, name, urls, 0 if keep_revisions else BUMP)
    except (ArchiveError, DataDirectoryError, RestoreRefused, *DAMAGE) as error:
        fail(str(error))
    print(f"{data_dir} holds the data of revision {manifest.revision}, in a new cluster of the one member {name!r}")
