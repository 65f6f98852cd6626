"""How an object of ours is kept as it is wanted, over the simulated API server (the real one is used in e2e)."""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import pytest
from holdfast_operator.kube import FIELD_MANAGER, ApiError
from holdfast_operator.objects import Leaving, NotOurs, ensure, ensure_absent
from holdfast_operator.resources.common import owner
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.kube import Faults, Request, SimKube

Object = dict[str, Any]


class Server:
    """An API server with one cluster object, and the writes that it got."""

    def __init__(self) -> None:
        self.api = ApiServer(lambda: 0.0)
        self.writes: list[str] = []
        self.kube = SimKube(self.api, Random(1), Faults(latency=0.0), self._note, lambda _: None)
        spec = {"version": "0.2.0", "voters": {"replicas": 3}, "tls": {"mode": "Disabled"}}
        self.cluster = self.new_cluster(spec)

    def new_cluster(self, spec: Object) -> Object:
        return self.api.create("HoldfastCluster", "d", {"metadata": {"name": "shop"}, "spec": spec})

    def _note(self, request: Request) -> None:
        if request.writes:
            self.writes.append(str(request))

    def service(self, **spec: object) -> Object:
        meta = {"name": "shop-client", "namespace": "d", "ownerReferences": owner(self.cluster), "labels": {"a": "b"}}
        ports = [{"name": "client", "port": 2379}]
        return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports, **spec}}

    @property
    def live(self) -> Object:
        return self.api.named("Service", "d", "shop-client")


@pytest.fixture
def server() -> Server:
    return Server()


async def test_what_is_as_wanted_costs_no_write(server: Server) -> None:
    wanted = server.service(selector={"x": "y"})
    await ensure(server.kube, server.cluster, wanted)
    assert server.writes == ["POST Service shop-client"]
    server.api.edit(server.live, lambda obj: obj["spec"].update(clusterIP="10.0.0.1"), "allocator")
    for _ in range(3):
        await ensure(server.kube, server.cluster, wanted)
    assert len(server.writes) == 1


def _remove_selector(obj: Object) -> None:
    del obj["spec"]["selector"]


def _other_port(obj: Object) -> None:
    obj["spec"]["ports"][0]["port"] = 1


def _no_label(obj: Object) -> None:
    obj["metadata"]["labels"] = {}


@pytest.mark.parametrize("drift", [_remove_selector, _other_port, _no_label])
async def test_a_field_that_somebody_changed_is_put_back(server: Server, drift: Any) -> None:
    wanted = server.service(selector={"x": "y"})
    made = copy.deepcopy(await ensure(server.kube, server.cluster, wanted))
    server.api.edit(server.live, drift, "kubectl-edit")
    await ensure(server.kube, server.cluster, wanted)
    assert server.live["spec"] == made["spec"]
    assert server.live["metadata"]["labels"] == {"a": "b"}
    assert server.live["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_field_that_is_no_longer_wanted_goes_although_it_came_with_a_post(server: Server) -> None:
    await ensure(server.kube, server.cluster, server.service(selector={"x": "y"}, internalTrafficPolicy="Local"))
    server.api.edit(server.live, lambda obj: obj["metadata"]["labels"].update(theirs="kept"), "kubectl-edit")
    await ensure(server.kube, server.cluster, server.service(selector={"x": "y"}))
    assert server.live["spec"]["internalTrafficPolicy"] == "Cluster", "the server's default"
    assert server.live["metadata"]["labels"] == {"a": "b", "theirs": "kept"}
    writers = {
        (m["manager"], m["operation"])
        for m in (await server.kube.get("Service", "d", "shop-client") or {})["metadata"]["managedFields"]
    }
    assert (FIELD_MANAGER, "Update") not in writers


async def test_the_same_quantity_in_other_words_is_the_same(server: Server) -> None:
    wanted = server.service()
    wanted["spec"]["resources"] = {"requests": {"cpu": "0.5", "memory": "1Gi"}}
    await ensure(server.kube, server.cluster, wanted)
    same = {"requests": {"cpu": "500m", "memory": "1024Mi"}}
    server.api.edit(server.live, lambda obj: obj["spec"].update(resources=same), FIELD_MANAGER)
    await ensure(server.kube, server.cluster, wanted)
    assert len(server.writes) == 1
    less = {"requests": {"cpu": "400m", "memory": "1Gi"}}
    server.api.edit(server.live, lambda obj: obj["spec"].update(resources=less), "kubectl-edit")
    await ensure(server.kube, server.cluster, wanted)
    assert len(server.writes) > 1


async def test_an_object_of_somebody_else_is_left_alone(server: Server) -> None:
    theirs = {"metadata": {"name": "shop-client"}, "spec": {"ports": []}}
    server.api.create("Service", "d", theirs)
    with pytest.raises(NotOurs, match="the Service shop-client exists and is not ours"):
        await ensure(server.kube, server.cluster, server.service())
    await ensure_absent(server.kube, server.cluster, "Service", "shop-client")
    assert server.writes == []
    assert server.live["spec"]["ports"] == []


async def test_an_object_of_an_earlier_cluster_of_the_same_name_is_not_ours(server: Server) -> None:
    await ensure(server.kube, server.cluster, server.service())
    later = {**server.cluster, "metadata": {**server.cluster["metadata"], "uid": "another"}}
    with pytest.raises(Leaving, match="earlier HoldfastCluster"):
        await ensure(server.kube, later, server.service())
    await ensure_absent(server.kube, later, "Service", "shop-client")
    assert server.live


async def test_a_refusal_is_told_in_the_servers_words(server: Server) -> None:
    def refuse(request: Request) -> None:
        raise ApiError(422, "Invalid", "spec.ports: Required value")

    kube = SimKube(server.api, Random(1), Faults(latency=0.0), refuse, lambda _: None)
    with pytest.raises(ApiError, match=r"spec\.ports: Required value"):
        await ensure(kube, server.cluster, server.service())


async def test_a_selector_and_ports_are_exactly_ours(server: Server) -> None:
    """One more label selects no pod of ours, and one more port serves nothing."""
    wanted = server.service(selector={"x": "y"})
    await ensure(server.kube, server.cluster, wanted)
    server.api.edit(server.live, lambda obj: obj["spec"]["selector"].update(foo="bar"), "kubectl")
    await ensure(server.kube, server.cluster, wanted)
    assert server.live["spec"]["selector"] == {"x": "y"}
    other = {"name": "other", "port": 80}
    server.api.edit(server.live, lambda obj: obj["spec"]["ports"].append(other), "kubectl")
    await ensure(server.kube, server.cluster, wanted)
    assert [port["port"] for port in server.live["spec"]["ports"]] == [2379]
    writes = len(server.writes)
    await ensure(server.kube, server.cluster, wanted)
    assert len(server.writes) == writes
