"""What a replica has and a restored cluster lacks: the changes after the revision that the restore went back to.

They are never merged into the cluster, which may have decided otherwise meanwhile. Before the replica goes over to the
restored cluster, it keeps them in a file, in which whoever did the restore can look up what was lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from itertools import islice
from pathlib import Path
from typing import Any

from holdfast.client.errors import Unavailable
from holdfast.edge.change_lines import delete_line, put_line
from holdfast.edge.core import ReplicaCore
from holdfast.edge.data import Position
from holdfast.edge.lineage import Lineage
from holdfast.kv.rows import PUT, Change
from holdfast.kv.space import KeySpace
from holdfast.proto import kv_pb2
from holdfast.storage.files import sync_directory

log = logging.getLogger("holdfast.edge")

DIRECTORY = "lost"
STEP = 500  # changes read in a turn of the loop


async def keep_before_going_over(data: Path, core: ReplicaCore, later: Lineage) -> None:
    """`keep_lost` of a replica that is about to go over to `later`. Raises Unavailable if it cannot be kept: then the
    replica must not."""
    try:
        file = await keep_lost(data, core.position, core.space, later)
    except OSError as error:
        text = f"what the later history lacks cannot be kept in {data / DIRECTORY}, so it stays here: {error}"
        raise Unavailable(text) from error
    if file is not None:
        log.warning("the later history lacks changes that this replica has: they are kept in %s", file)


async def keep_lost(data: Path, position: Position, space: KeySpace, later: Lineage) -> Path | None:
    """Write what `space` has after the last revision that `later` is known to share into a file in the directory
    `data`, and return its path; None if there is nothing. Raises OSError; then no file is left.

    The file has a JSON object in each line. The first says what the others are: changes in order, each of which has
    `key` and `value` in base64. `complete` is false if deletions and values that were replaced soon may be missing."""
    shared = later.shared(position.lineage)
    first = shared + 1
    if position.watermark < first or not any(True for _ in space.history(first, position.watermark)):
        return None
    place = data / DIRECTORY
    file = place / f"{position.cluster_id:x}-{position.epoch}-{position.watermark}.jsonl"
    head = {
        "cluster": f"{position.cluster_id:x}",
        "epoch": position.epoch,
        "after": shared,
        "revision": position.watermark,
        "complete": space.history_from <= first,
        "restored_cluster": f"{later.cluster_id:x}",
        "restored_epoch": later.epoch,
    }
    loop = asyncio.get_running_loop()
    fresh = file.with_suffix(".new")
    await loop.run_in_executor(None, _begin, fresh, head)
    try:
        at = first, 0
        while found := list(islice(space.history(at[0], position.watermark, at[1]), STEP)):
            await loop.run_in_executor(None, _append, fresh, [change for change, _, _ in found])
            change, number, _ = found[-1]
            at = change.revision, number + 1
        await loop.run_in_executor(None, _finish, fresh, file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    return file


def _begin(file: Path, head: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(head) + "\n")


def _append(file: Path, changes: list[Change]) -> None:
    with file.open("a") as out:
        out.writelines(_line(change) + "\n" for change in changes)


def _line(change: Change) -> str:
    if change.type == PUT:
        return put_line(kv_pb2.KeyValue.FromString(change.kv))
    return delete_line(change.revision, change.key)


def _finish(fresh: Path, file: Path) -> None:
    with fresh.open("rb") as written:
        os.fsync(written.fileno())
    fresh.rename(file)
    sync_directory(file.parent)
