"""`holdfast snapshot save|status|restore`: backs up all data of a cluster in one file, and restores it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

import typer

from holdfast import client
from holdfast.cli.errors import fail
from holdfast.cli.parsing import parse_urls
from holdfast.cli.session import LOCAL, Endpoints, Output, Timeout, TlsDir, User, as_json, check_output, run, table

snapshot = typer.Typer(help="Save the data, and restore it to a new cluster.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The snapshot file.", show_default=False)]


@snapshot.command()
def save(
    file: File, endpoints: Endpoints = LOCAL, tls_dir: TlsDir = None, user: User = "", timeout: Timeout = 60.0
) -> None:
    """Save the state of the first endpoint to FILE. The file ends with the SHA-256 of its content."""

    async def work(hf: client.Client) -> None:
        fresh = file.with_name(file.name + ".part")
        sum_, last, size = hashlib.sha256(), b"", 0
        fresh.touch()
        fresh.chmod(0o600)  # regardless of the umask, and before anything is written
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
    """Check FILE, and show which state it contains, as its manifest says; `restore` compares that with the state."""
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
    data_dir: Annotated[Path, typer.Option(help="Data directory of the new member; must be empty.")],
    name: Annotated[str, typer.Option(help="Name of the new member.")] = "default",
    initial_advertise_peer_urls: Annotated[
        str, typer.Option(help="URLs at which other members will reach the new member: URL,URL,…")
    ] = "http://localhost:2380",
    keep_revisions: Annotated[
        bool,
        typer.Option(
            help="Continue with the revision after that of the snapshot. Only safe if no client has seen later "
            "revisions: such a client would miss changes. By default revisions skip ahead."
        ),
    ] = False,
    for_operator: Annotated[
        bool,
        typer.Option(help="For serve --bootstrap=managed: it serves no client until an operator has taken it over."),
    ] = False,
) -> None:
    """Create a new cluster of one member with the data in FILE; others join it by `member add`.

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
        outcome = make(file, data_dir, name, urls, 0 if keep_revisions else BUMP, opened=not for_operator)
    except (ArchiveError, DataDirectoryError, RestoreRefused, *DAMAGE) as error:
        fail(str(error))
    print(f"{data_dir} holds the data of revision {outcome.revision}, in a new cluster of the one member {name!r}")
    for alarm in outcome.ended_alarms:
        print(f"the saved cluster had the alarm {alarm}; the new one does not have it")
