"""What an action tells in events: what it did, and not what was refused because the object has changed since."""

from __future__ import annotations

from random import Random

import pytest
from holdfast_operator.act import Actor
from holdfast_operator.kube import Object
from holdfast_operator.members import Members
from holdfast_operator.observe import Observation
from holdfast_operator.plan.actions import Action, DeletePod, DeleteVolume, EvictPod
from holdfast_operator.plan.facts import Observed
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.kube import Faults, Request, SimKube


class World:
    """A simulated API server with a cluster, one pod and one claim; and the events that were recorded."""

    def __init__(self) -> None:
        self.api = ApiServer(lambda: 0.0)
        self.told: list[str] = []
        self.kube = SimKube(self.api, Random(1), Faults(latency=0.0), self._note, lambda _: None)
        spec = {"version": "0.2.0", "voters": {"replicas": 1}, "tls": {"mode": "Disabled"}}
        self.cluster = self.api.create("HoldfastCluster", "d", {"metadata": {"name": "shop"}, "spec": spec})
        pod: Object = {"containers": [{"name": "holdfast", "image": "holdfast:0.2.0"}]}
        claim: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        self.pod = self.api.create("Pod", "d", {"metadata": {"name": "shop-voter-0"}, "spec": pod})
        named: Object = {"metadata": {"name": "data-shop-voter-0"}, "spec": claim}
        self.claim = self.api.create("PersistentVolumeClaim", "d", named)

    def _note(self, request: Request) -> None:
        if request.kind.name == "Event":
            self.told.append(request.body["reason"])

    def change(self, obj: Object) -> None:
        self.api.edit(obj, lambda found: found["metadata"].update(annotations={"a": "b"}), "kubelet")

    async def carry_out(self, action: Action) -> None:
        seen = Observation(Observed({}, {}, None), {0: self.pod}, {}, None, [], None)
        await Actor(self.kube, Members(self.kube, "shop", "d", tls=False), self.cluster, seen, tls=False).carry_out(
            action
        )


@pytest.fixture
def world() -> World:
    return World()


async def test_a_pod_that_changed_is_not_deleted_and_not_said_to_be(world: World) -> None:
    action = DeletePod(0, world.pod["metadata"]["uid"], "it cannot run", unchanged=True)
    world.change(world.pod)
    await world.carry_out(action)
    assert world.api.list("Pod", "d")
    assert not world.told


async def test_what_is_deleted_is_told(world: World) -> None:
    await world.carry_out(DeleteVolume("data-shop-voter-0", world.claim["metadata"]["uid"], "its member was removed"))
    await world.carry_out(DeletePod(0, world.pod["metadata"]["uid"], "it cannot run", unchanged=True))
    assert world.told == ["VolumeDeleted", "PodReplaced"]


@pytest.mark.parametrize(
    "action",
    [EvictPod(0, "another", "it is outdated"), DeleteVolume("data-shop-voter-0", "another", "its member was removed")],
)
async def test_of_another_object_of_the_name_nothing_is_told(world: World, action: Action) -> None:
    await world.carry_out(action)
    assert world.api.list("Pod", "d")
    assert not world.told
