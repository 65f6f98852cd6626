"""A site with a relay: cut off from the cloud with its replicas restarted, healed, given other prefixes, and with a
cluster that is restored.

The tests go in order. SITE_CUT_SECONDS: how long the site is cut off at least.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.applications import Writer, provide_scripts
from e2e.backups import restore, save
from e2e.clusters import REPLICAS, namespace
from e2e.kubectl import eventually
from e2e.nodes import CONTROL_PLANE, cut_off, nodes
from e2e.sites import CONFIG, POOL, WRITER, WRITES, LocalWriter, Observer, Site, restart

pytestmark = pytest.mark.timeout(3600)

CUT_SECONDS = float(os.environ.get("SITE_CUT_SECONDS", "60"))
TOLD = 150.0  # seconds until the status tells of a cut
MOST_STREAMS = 10  # that two replicas begin when they are connected again: each may try some upstreams
MOST_SENT = 10  # times the data
GAP = 2.0  # seconds in which no read of an observer works, while its replica goes over to another cluster


def lives(pods: list[Any]) -> dict[str, int]:
    """How often the container of each pod was started, by the pod's uid."""
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with namespace("site") as name:
        made = Site(name)
        made.apply()
        made.pool_with([CONFIG, WRITES])
        made.configure({"payment.yaml": "provider: before", "removed.yaml": "later"})
        provide_scripts(name)
        made.wait_ready()
        made.pool_ready(POOL)
        made.config_ready()
        yield made


def test_site_follows_through_its_relay(site: Site) -> None:
    relay, child = eventually("one replica follows the members, the other one follows it", site.relay_and_child)
    print(site.holdfast("edge", "status"))
    assert site.relays() == [relay]
    assert relay != child
    assert site.load().following == 1, "the members feed the relay and no other"
    eventually("the pool has its relay, and fresh data", site.all_well, TOLD)


def test_site_is_cut_off(site: Site) -> None:
    """Its replicas serve what they have, also after a restart. Healed, they have all that the cluster has, and watches
    at them told each event once."""
    pods = {**site.pod_uids(), **site.pod_uids(REPLICAS)}
    start, watched = site.revision() + 1, [CONFIG, WRITES]
    cloud = Observer(site, "in-the-cloud", CONTROL_PLANE, "shop-client", start, watched)
    inside = [Observer(site, f"on-{node}", node, "shop-edge", start, watched) for node in nodes("edge")]
    writer, local = Writer(WRITER, site, CONTROL_PLANE), LocalWriter(site)
    eventually("the site has what is written", lambda: all(observer.events(WRITES) for observer in inside))
    began = time.monotonic()
    with cut_off([observer.node for observer in inside]):
        for observer in inside:
            restart(site, observer)
        before = [observer.events(WRITES) for observer in inside]
        local.writes_on()
        site.configure({"payment.yaml": "provider: during"})
        eventually("the status tells of the cut", site.all_offline, TOLD)
        print(site.kubectl("get", "hfep", POOL, "-o", "wide"))
        eventually("it lasts long enough", lambda: time.monotonic() > began + CUT_SECONDS, CUT_SECONDS + 10)
        writer.writes_on()
        assert [observer.events(WRITES) for observer in inside] == before, "nothing gets in"
        assert {observer.reads()[-1]["read"] for observer in inside} == {"provider: before"}
        site.configure({"payment.yaml": "provider: after"})
        load = site.load()
    print(f"   the site was cut off for {time.monotonic() - began:.0f} s")
    began = time.monotonic()
    eventually("the site has what came last", lambda: all(o.reads()[-1]["read"] == "provider: after" for o in inside))
    print(
        f"   {time.monotonic() - began:.1f} s after the healing; the members meanwhile: {(grown := site.load() - load)}"
    )
    writer.writes_on()
    local.writes_on()
    local.stop()
    acknowledged = writer.stop()

    def told_once() -> bool:
        seen = [[observer.events(prefix) for prefix in watched] for observer in (cloud, *inside)]
        complete = {e.key for e in cloud.events(WRITES)} >= {a["acknowledged"] for a in acknowledged}
        return complete and seen[0] == seen[1] == seen[2]

    eventually("watches at the site told the same as in the cloud, each event once", told_once)
    eventually("each replica has what the cluster has, with its revisions", lambda: site.same_as_cluster(watched))
    size = sum(len(key) + len(value) for prefix in watched for key, value, *_ in site.rows(prefix))
    print(f"   {len(acknowledged)} writes in all; the data has {size} bytes")
    eventually("the pool has its relay, and fresh data", site.all_well, TOLD)
    print(site.holdfast("edge", "status"))
    assert grown.follows <= MOST_STREAMS
    assert grown.sent < MOST_SENT * size
    assert {**site.pod_uids(), **site.pod_uids(REPLICAS)} == pods, "no pod was replaced"
    for observer in (cloud, *inside):
        observer.stop()


def test_site_has_other_prefixes(site: Site) -> None:
    """What the replicas had of the new prefixes is served throughout."""
    inside = [Observer(site, f"on-{node}", node, "shop-edge", site.revision() + 1, [CONFIG]) for node in nodes("edge")]
    by_pool = Observer(site, "by-the-pool", CONTROL_PLANE, f"{POOL}-replica", site.revision() + 1, [CONFIG])
    for prefixes in ([CONFIG], [CONFIG, WRITES]):
        began = time.time()
        relay = site.relays()[0]
        site.pool_with(prefixes)
        eventually("all replicas are started with them", lambda: site.rolled(prefixes))  # noqa: B023
        site.pool_ready(POOL)
        assert site.oldest_replica() == relay, "the relay comes first"
        eventually("each replica has what the cluster has", lambda: site.same_as_cluster(prefixes))  # noqa: B023
        eventually("one follows the other", site.relay_and_child)
        for observer in (*inside, by_pool):
            assert {read["read"] for read in observer.reads()} == {"provider: after"}
            print(f"   {observer.name}: no read for {observer.longest_gap(began):.2f} s at most")
        if prefixes == [CONFIG]:
            with pytest.raises(AssertionError, match="prefix"):
                site.rows(WRITES, relay)
    site.configure({"payment.yaml": "provider: last"})
    for observer in (*inside, by_pool):
        eventually(f"{observer.name} goes on", lambda o=observer: o.reads()[-1]["read"] == "provider: last")  # type: ignore[misc]


def test_site_goes_over_to_the_restored_cluster(site: Site) -> None:
    """The way of docs/kubernetes.md. Nobody touches the replicas."""
    before, replicas = site.object()["status"]["clusterID"], site.pods(REPLICAS)
    observer = Observer(site, "all-the-time", nodes("edge")[1], "shop-edge", 0, [])
    site.holdfast("put", f"{WRITES}removed", "later")
    saved = site.rows(WRITES)
    save(site)
    site.holdfast("put", f"{WRITES}lost", "written after the snapshot")
    site.holdfast("del", f"{WRITES}removed")
    eventually("each replica has what the cluster has", lambda: site.same_as_cluster([WRITES]))
    began = time.time()
    with pytest.raises(AssertionError, match="nothing was restored"):
        restore(site, "no-such-snapshot.db")
    assert {"data-shop-voter-1", "data-shop-voter-2"} <= set(site.claim_uids()), "nothing is given up"
    restore(site)
    site.wait_ready()
    assert site.object()["status"]["clusterID"] != before
    print(f"   restored, with three voters, after {time.time() - began:.1f} s")
    assert site.rows(WRITES) == saved
    eventually("each replica has what the cluster has", lambda: site.same_as_cluster([CONFIG, WRITES]))
    eventually("the pool has its relay, and fresh data", site.all_well, TOLD)
    assert lives(site.pods(REPLICAS)) == lives(replicas), "no replica was restarted"
    print(f"   {observer.name}: no read for {observer.longest_gap(began):.2f} s at most")
    assert observer.longest_gap(began) < GAP
    for pod in replicas:
        assert "written after the snapshot" in site.lost(pod["metadata"]["name"])
    site.configure({"payment.yaml": "provider: restored"})
    eventually("it goes on", lambda: observer.reads()[-1]["read"] == "provider: restored")
    observer.stop()


def test_site_has_another_number_of_relays(site: Site) -> None:
    """Of two replicas both are relays, then none is; all that the pool had for relays is gone."""
    for relays in (2, 0):
        site.pool_with([CONFIG, WRITES], relays)
        eventually(f"the pool has {relays} relays", site.pool_settled)
        site.pool_ready(POOL)
        assert len(site.relays()) == relays
        service = site.kubectl("get", "service", f"{POOL}-relay", "--ignore-not-found", "-o", "name")
        assert bool(service) == bool(relays)
        eventually("both follow members", lambda: site.load().following == 2)
        eventually("each replica has what the cluster has", lambda: site.same_as_cluster([CONFIG, WRITES]))
