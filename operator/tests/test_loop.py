"""The loops: no wake-up is lost, a loop that ended begins again, and each object fails alone."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from random import Random
from typing import Any

from holdfast_operator.cluster_loop import cluster_loops
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.kube import Faults, Request, SimKube

Object = dict[str, Any]
SPEC = {"version": "0.2.0", "voters": {"replicas": 1}, "tls": {"mode": "Disabled"}}
POOL = {"clusterRef": {"name": "shop"}, "placement": {"nodeSelector": {"tier": "edge"}}, "prefixes": ["/a/"]}
CONFIG = {"clusterRef": {"name": "shop"}, "prefix": "/a/", "data": {"x": "y"}}


class Server:
    def __init__(self) -> None:
        self.api = ApiServer(lambda: 0.0)
        self.requests: list[str] = []
        self.watched: Callable[[Request], None] = lambda _: None
        kube = SimKube(self.api, Random(1), Faults(latency=0.0), self._note, lambda _: None)
        self.loops = cluster_loops(kube, "holdfast")

    def _note(self, request: Request) -> None:
        self.requests.append(str(request))
        self.watched(request)

    def make(self, kind: str, name: str, spec: Object) -> Object:
        return self.api.create(kind, "d", {"metadata": {"name": name}, "spec": copy.deepcopy(spec)})

    def condition(self, kind: str, name: str, type_: str) -> tuple[str, str]:
        """(status, reason)"""
        found = self.api.named(kind, "d", name).get("status", {}).get("conditions", [])
        return next(((c["status"], c["reason"]) for c in found if c["type"] == type_), ("", ""))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_wake_up_during_the_last_pass_of_a_cluster_is_not_lost() -> None:
    server = Server()

    def made_again(request: Request) -> None:
        """The cluster is made while the pass that found none has not ended."""
        if str(request) == "GET HoldfastCluster shop":
            server.watched = lambda _: None
            asyncio.get_running_loop().call_soon(server.make, "HoldfastCluster", "shop", SPEC)
            asyncio.get_running_loop().call_soon(server.loops.wake, "d", "shop")

    server.watched = made_again
    server.loops.wake("d", "shop")
    await until(lambda: server.api.get("StatefulSet", "d", "shop-voter") is not None)
    await server.loops.close()


async def test_a_loop_that_ended_begins_again() -> None:
    server = Server()
    server.loops.wake("d", "shop")
    await until(lambda: not server.loops._loops)
    server.make("HoldfastCluster", "shop", SPEC)
    server.loops.wake("d", "shop")
    await until(lambda: server.api.get("StatefulSet", "d", "shop-voter") is not None)
    await server.loops.close()


async def test_each_object_fails_alone_and_says_why() -> None:
    server = Server()
    server.make("HoldfastCluster", "shop", SPEC)
    server.make("HoldfastEdgePool", "broken", {**POOL, "prefixes": 7})
    server.make("HoldfastEdgePool", "newer", {**POOL, "maxUnavailable": 1})
    server.make("HoldfastConfig", "broken", {**CONFIG, "data": {"x": 7}, "prefix": "/b/"})
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastConfig", "broken", "Ready") == ("False", "InvalidSpec"))
    await until(lambda: server.condition("HoldfastEdgePool", "broken", "Stalled") == ("True", "InvalidSpec"))
    await until(lambda: server.condition("HoldfastEdgePool", "newer", "Ready") == ("False", "NoNodes"))
    assert server.api.get("StatefulSet", "d", "shop-voter") is not None
    await server.loops.close()


async def test_a_pool_says_what_is_not_known_and_nothing_of_an_earlier_pass() -> None:
    server = Server()
    server.api.create("Node", "", {"metadata": {"name": "n1", "labels": {"tier": "edge"}}})
    server.make("HoldfastCluster", "shop", SPEC)
    site = {"name": "factory", "writer": "n1"}
    spec = {**POOL, "relaysPerSite": 1, "stalenessTargetSeconds": 10, "site": site}
    made = server.make("HoldfastEdgePool", "berlin", spec)
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastEdgePool", "berlin", "Fresh") == ("Unknown", "NoAnswer"))
    assert server.condition("HoldfastEdgePool", "berlin", "Relays") == ("False", "NotReady")
    assert server.condition("HoldfastEdgePool", "berlin", "SiteWriter") == ("False", "NotReady")
    for service in ("berlin-relay", "berlin-writer"):
        assert server.api.get("Service", "d", service) is not None
    server.api.edit(made, lambda obj: obj["spec"].update(prefixes=7))
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastEdgePool", "berlin", "Stalled") == ("True", "InvalidSpec"))
    for type_ in ("Fresh", "Relays", "SiteWriter"):
        assert server.condition("HoldfastEdgePool", "berlin", type_) == ("", "")
    await server.loops.close()


async def test_relays_of_an_earlier_pool_are_refused_in_words() -> None:
    """One StatefulSet makes all pods alike."""
    server = Server()
    server.api.create("Node", "", {"metadata": {"name": "n1", "labels": {"tier": "edge"}}})
    status = {"bootstrapped": True}
    cluster = server.make("HoldfastCluster", "shop", SPEC)
    server.api.set_status(cluster, status)  # an operator of 0.1 formed it
    server.make("HoldfastEdgePool", "berlin", {**POOL, "relaysPerSite": 1})
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastEdgePool", "berlin", "Relays") == ("False", "OneStatefulSet"))
    assert server.api.get("Service", "d", "berlin-relay") is None
    assert server.api.get("StatefulSet", "d", "berlin-replica") is not None
    await server.loops.close()


async def test_a_spec_that_the_server_refuses_is_reported_in_its_words() -> None:
    server = Server()
    resources = {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}
    server.make("HoldfastCluster", "shop", {**SPEC, "voters": {"replicas": 1, "resources": resources}})
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastCluster", "shop", "Stalled")[0] == "True")
    assert server.api.get("Service", "d", "shop-client") is not None, "the other objects are made"
    await server.loops.close()


async def test_configurations_cost_one_list_however_many_there_are() -> None:
    server = Server()
    server.make("HoldfastCluster", "shop", SPEC)
    for n in range(20):
        server.make("HoldfastConfig", f"c{n}", {**CONFIG, "prefix": f"/{n:02}/"})
    passes = 0

    def count(request: Request) -> None:
        nonlocal passes
        passes += str(request) == "GET HoldfastCluster shop"

    server.watched = count
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastConfig", "c19", "Applied") == ("False", "ClusterNotAvailable"))
    assert server.requests.count("GET HoldfastConfig ") <= passes + 1
    await server.loops.close()


async def test_while_paused_nothing_is_changed_and_the_status_is_true() -> None:
    server = Server()
    server.make("HoldfastCluster", "shop", {**SPEC, "paused": True})
    server.make("HoldfastEdgePool", "berlin", POOL)
    server.make("HoldfastConfig", "c", CONFIG)
    server.loops.wake("d", "shop")
    await until(lambda: server.condition("HoldfastCluster", "shop", "Paused") == ("True", "SpecPaused"))
    await until(lambda: server.condition("HoldfastEdgePool", "berlin", "Ready")[0] == "False")
    writes = [r for r in server.requests if not r.startswith("GET") and "/status" not in r]
    assert writes == []
    await server.loops.close()
