"""Reports the keys of a site to the cluster, through the outbox of the replica that writes them.

A few wait in the outbox at a time, so the programs of the node have room there as well.
"""

from __future__ import annotations

from holdfast.edge.outbox import Outbox
from holdfast.edge.overlay import Overlay
from holdfast.edge.site_keys import reported_as
from holdfast.proto import holdfast_pb2
from holdfast.status import RequestError

AT_ONCE = 20


class LocalReports:
    """What of the site is in the outbox. `feed` moves on."""

    def __init__(self, overlay: Overlay, outbox: Outbox) -> None:
        self._overlay = overlay
        self._outbox = outbox
        self._fed: dict[bytes, int] = {}  # key: the revision whose report is in the outbox

    @property
    def due(self) -> list[str]:
        """The keys, as they are reported, whose newest value the cluster does not have yet."""
        return [reported_as(key) for key in self._overlay.due()]

    def feed(self) -> None:
        """Note what was delivered, and put into the outbox what is due now."""
        for key, revision in list(self._fed.items()):
            if not self._outbox.waits(reported_as(key)):
                self._overlay.reported(key, revision)
                del self._fed[key]
        if len(self._fed) >= AT_ONCE:
            return
        for key, revision in self._overlay.due().items():
            if self._fed.get(key) == revision:
                continue
            if key not in self._fed and len(self._fed) >= AT_ONCE:
                return
            value = self._overlay.value(key)
            try:
                self._outbox.put(
                    holdfast_pb2.ReportedEntry(key=reported_as(key), value=value or b"", deleted=value is None)
                )
            except RequestError:
                return  # it is full: what waits there goes first
            self._fed[key] = revision
