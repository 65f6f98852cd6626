"""Whether the keys of the site are here as they are: for `holdfast edge status`, and for /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from holdfast.api.metrics import gauges, labelled
from holdfast.edge.local import LocalApi
from holdfast.edge.site_copy import SiteCopy
from holdfast.edge.site_writer import SiteWriter
from holdfast.proto import holdfast_pb2


def site_state(local: LocalApi | None) -> holdfast_pb2.SiteState | None:
    """None: the replica is of no site."""
    if local is None:
        return None
    site, here = local.keys.site, local.site
    return holdfast_pb2.SiteState(site=site.name, writer=site.writer, follows=_follows(here))


def site_metrics(local: LocalApi) -> Iterator[Metric]:
    site, here = local.keys.site, local.site
    writes = isinstance(here, SiteWriter)
    staleness = 0 if isinstance(here, SiteWriter) else here.follower.staleness_ms
    yield labelled("holdfast_site_info", {"site": site.name, "writer": site.writer})
    yield from gauges(
        {
            "holdfast_site_writes": float(writes),
            "holdfast_site_connected": float(_follows(here)),
            "holdfast_site_staleness_seconds": float("nan") if staleness is None else staleness / 1000,
            "holdfast_site_revision": here.served.space.revision,
            "holdfast_site_epoch": here.lineage.epoch,
        }
    )


def _follows(here: SiteWriter | SiteCopy) -> bool:
    return isinstance(here, SiteWriter) or here.follower.connected
