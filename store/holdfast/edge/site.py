"""Opens the keys of the site of a replica: to write them, or to hold a copy."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from holdfast.client.connection import Connection
from holdfast.edge.generations import Generations
from holdfast.edge.overlay import end_writing
from holdfast.edge.site_copy import SiteCopy
from holdfast.edge.site_keys import SiteKeys
from holdfast.edge.site_writer import SiteWriter
from holdfast.kv.rows import Change
from holdfast.kv.store import StateDamaged
from holdfast.storage.identity import SITE
from holdfast.storage.state import TakesNothing

log = logging.getLogger("holdfast.edge")


def open_site(
    data: Path,
    keys: SiteKeys,
    *,
    name: str,
    node: int,
    writer: Connection | None,
    tell: Callable[[list[list[Change]]], None],
    changed: Callable[[], None],
    damaged: Callable[[StateDamaged], None],
    flush: Callable[[], None],
) -> SiteWriter | SiteCopy:
    """The keys of the site, in the data directory `data` of the replica `name`. `writer` leads to the replica that
    writes them; None: it is this one. `changed` is called when there is something to report. Raises Damaged,
    StateDamaged, StateUnreadable or OSError, as `Generations.at` does."""
    path = data / SITE
    try:
        generations = Generations.at(path)
    except (TakesNothing, OSError):
        if not path.exists():
            raise
        generations = Generations(path, read_only=True)
        log.error("the disk of %s takes nothing: keys of the site %s can be read, not changed", data, keys.site.name)
    generations.store.on_damage = damaged
    if writer is None:
        id = secrets.randbits(62) + 1
        return SiteWriter(generations, keys, id, node=node, tell=tell, changed=changed, flush=flush)
    if not generations.store.full:
        end_writing(generations.store, keys)
    return SiteCopy(
        data, generations, keys, node=node, writer=writer, name=name, tell=tell, damaged=damaged, flush=flush
    )
