"""HoldfastCells over real clusters, each a process, and the simulated API server: the set is made and changed, a cell
is away, a cell is restored, and the status says how it is."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from holdfast import cells, client
from holdfast.cells import Message
from holdfast.client.txn import Ops
from holdfast_lab.processes import LocalCluster, Process
from holdfast_operator.cells_loop import cells_loops
from holdfast_operator.reconcile_cells import CellsReconciler
from holdfast_operator.sim.apiserver import ApiServer
from holdfast_operator.sim.kube import Faults, Request, SimKube

pytestmark = pytest.mark.timeout(240)

Object = dict[str, Any]
NAMES = ("ap", "eu", "us")


class World:
    """Three clusters, of which none runs yet, an API server, and the operator's passes over one HoldfastCells."""

    def __init__(self, directory: Path) -> None:
        self.clusters = {name: LocalCluster(directory / name, voters=1) for name in NAMES}
        self.api = ApiServer(lambda: 0.0)
        self.writes: list[str] = []
        self.before_write: Callable[[str], None] = lambda _: None
        self.kube = SimKube(self.api, Random(1), Faults(latency=0.0), self._note, lambda _: None)
        self.reconciler = self.operator()

    def operator(self) -> CellsReconciler:
        return CellsReconciler(self.kube, "d", "regions", "holdfast:test", lambda: None, timeout=1.0)

    def _note(self, request: Request) -> None:
        if request.writes:
            self.writes.append(str(request))
            self.before_write(str(request))

    async def start(self, *names: str) -> None:
        for name in names:
            self.clusters[name].start()
        for name in names:
            await self.clusters[name].wait_ready()

    def cell(self, name: str, **more: object) -> Object:
        return {"name": name, "endpoints": self.clusters[name].endpoints, **more}

    def make(self, *names: str, **more: object) -> Object:
        spec = {"cells": [self.cell(name) for name in names], **more}
        return self.api.create("HoldfastCells", "d", {"metadata": {"name": "regions"}, "spec": spec})

    def want(self, *wanted: Object) -> None:
        self.api.edit(self.object, lambda obj: obj["spec"].update(cells=list(wanted)))

    @property
    def object(self) -> Object:
        return self.api.named("HoldfastCells", "d", "regions")

    @property
    def status(self) -> Object:
        found: Object = self.object.get("status", {})
        return found

    def condition(self, type_: str) -> Object:
        found: list[Object] = self.status.get("conditions", [])
        return next((c for c in found if c["type"] == type_), {})

    @property
    def told(self) -> tuple[str, str]:
        """Ready, and why."""
        ready = self.condition("Ready")
        return ready.get("status", ""), ready.get("reason", "")

    def row(self, cell: str) -> Object:
        rows: list[Object] = self.status["cells"]
        return next(row for row in rows if row["name"] == cell)

    def counting(self) -> set[str]:
        return {row["name"] for row in self.status["cells"] if row["counts"]}

    async def until(self, holds: Callable[[], bool]) -> None:
        """Make passes until this holds of what they have written."""
        try:
            async with asyncio.timeout(60):
                while True:
                    await self.reconciler.run()
                    if holds():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within a minute; the status is {self.status}") from None

    def pods_are_ready(self) -> None:
        """What the controller of Deployments and the kubelets would do."""
        deployment = self.api.get("Deployment", "d", "regions-cells")
        if deployment is None:
            return
        replicas, generation = deployment["spec"]["replicas"], deployment["metadata"]["generation"]
        ready = {"readyReplicas": replicas, "updatedReplicas": replicas, "observedGeneration": generation}
        self.api.put_status(deployment, ready)

    async def settle(self, *names: str) -> None:
        """All of these count, and the pods run."""

        def settled() -> bool:
            self.pods_are_ready()
            return self.counting() == set(names) and self.told == ("True", "AllCount")

        await self.until(settled)

    @asynccontextmanager
    async def library(self, *names: str) -> AsyncIterator[cells.Cells]:
        """These cells, as any program uses them."""
        clients = {name: client.connect(self.clusters[name].endpoints, timeout=5.0) for name in names}
        async with cells.connect(clients, timeout=5.0) as them:
            yield them

    async def close(self) -> None:
        await self.reconciler.close()
        for cluster in self.clusters.values():
            cluster.kill()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


async def test_the_cells_are_set_up_once_all_of_them_answer(world: World) -> None:
    world.make(*NAMES)
    await world.start("eu", "us")
    await world.until(lambda: world.told == ("False", "WaitingForCells"))
    assert (world.status["reachable"], world.row("eu")["reachable"], world.row("ap")["reachable"]) == (
        "2/3",
        True,
        False,
    )
    assert world.condition("Available")["status"] == "False"
    assert "version" not in world.status
    assert world.api.get("Deployment", "d", "regions-cells") is None
    async with world.library("eu", "us") as them:
        assert (await them.survey()).set is None, "no cell is touched before all of them answer"
    await world.start("ap")
    await world.settle(*NAMES)
    assert (world.status["version"], world.status["reachable"]) == (1, "3/3")
    assert world.condition("Available")["status"] == "True"
    async with world.library(*NAMES) as them:
        assert await them.register("primary").change(lambda before: before or b"eu") == b"eu"


async def test_what_is_as_wanted_costs_no_write(world: World) -> None:
    world.make(*NAMES, queues=[{"from": "eu", "to": "us"}])
    await world.start(*NAMES)
    await world.settle(*NAMES)
    world.writes.clear()
    for _ in range(3):
        await world.reconciler.run()
    assert world.writes == []


async def test_a_cell_that_is_away_is_named_and_the_others_are_shown(world: World) -> None:
    world.make(*NAMES)
    await world.start(*NAMES)
    await world.settle(*NAMES)
    world.clusters["us"].kill()
    await world.until(lambda: world.told == ("False", "CellAway"))
    assert "us does not answer" in world.condition("Ready")["message"]
    assert "the others are a majority" in world.condition("Ready")["message"]
    assert world.condition("Available")["status"] == "True"
    assert (world.counting(), world.status["reachable"]) == ({"ap", "eu"}, "2/3")
    world.clusters["eu"].kill()
    await world.until(lambda: world.condition("Available")["status"] == "False")
    assert world.counting() == {"ap"}
    await world.start("eu", "us")
    await world.until(lambda: world.told == ("True", "AllCount"))


async def test_the_set_changes_to_what_the_spec_says(world: World) -> None:
    """Also without the cell that goes, and by an operator that has just started: the status says where the cell is."""
    world.make("eu", "us")
    await world.start(*NAMES)
    await world.settle("eu", "us")
    world.want(*(world.cell(name) for name in NAMES))
    await world.settle(*NAMES)
    assert world.status["version"] == 3
    world.clusters["us"].kill()
    await world.reconciler.close()
    world.reconciler = world.operator()
    world.want(world.cell("ap"), world.cell("eu"))
    await world.settle("ap", "eu")
    assert world.status["version"] == 5
    assert [row["name"] for row in world.status["cells"]] == ["ap", "eu"]
    (janitor,) = world.api.named("Deployment", "d", "regions-cells")["spec"]["template"]["spec"]["containers"]
    assert "us=" not in str(janitor["env"])


async def test_a_cell_that_is_added_has_to_answer(world: World) -> None:
    world.make("eu", "us")
    await world.start("eu", "us")
    await world.settle("eu", "us")
    world.want(*(world.cell(name) for name in NAMES))
    await world.until(lambda: world.told == ("False", "ChangeFailed"))
    assert "ap" in world.condition("Ready")["message"]
    assert (world.status["version"], world.counting()) == (1, {"eu", "us"})
    await world.start("ap")
    await world.settle(*NAMES)


async def test_where_a_cell_is_that_goes_is_not_forgotten_while_none_answers(world: World) -> None:
    world.make(*NAMES)
    await world.start(*NAMES)
    await world.settle(*NAMES)
    for cluster in world.clusters.values():
        cluster.kill()
    world.want(world.cell("ap"), world.cell("eu"))
    await world.until(lambda: world.status["reachable"] == "0/3")
    assert world.row("us")["endpoints"] == world.clusters["us"].endpoints
    await world.start("ap", "eu")
    await world.settle("ap", "eu")
    assert world.status["reachable"] == "2/2"


async def test_no_step_begins_before_the_status_says_where_each_cell_is(world: World) -> None:
    """Or nobody could reach a cell that was added, and taken out of the spec at the same moment."""
    world.make("eu", "us")
    await world.start(*NAMES)
    await world.settle("eu", "us")
    world.want(*(world.cell(name) for name in NAMES))

    def somebody_changes_the_object(request: str) -> None:
        if request == "PUT HoldfastCells/status regions":
            world.api.edit(world.object, lambda obj: obj["metadata"].update(labels={"n": str(len(world.writes))}))

    world.before_write = somebody_changes_the_object
    for _ in range(3):
        await world.reconciler.run()
        assert world.reconciler._work.step is None
    world.before_write = lambda _: None
    await world.settle(*NAMES)


def _restored(cluster: LocalCluster, saved: Path) -> None:
    (name,) = cluster.voters
    place = cluster.directory / name
    shutil.rmtree(place)
    options = [f"--data-dir={place}", f"--name={name}", f"--initial-advertise-peer-urls={cluster.peer_url(name)}"]
    _holdfast("snapshot", "restore", str(saved), *options)


def _holdfast(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "holdfast", *words], check=True, capture_output=True)


async def test_a_restored_cell_counts_once_its_id_is_confirmed(world: World, tmp_path: Path) -> None:
    world.make(*NAMES)
    await world.start(*NAMES)
    await world.settle(*NAMES)
    saved = tmp_path / "saved.db"
    await asyncio.to_thread(_holdfast, "snapshot", "save", str(saved), "--endpoints", world.clusters["us"].endpoints[0])
    world.clusters["us"].kill()
    await asyncio.to_thread(_restored, world.clusters["us"], saved)
    await world.start("us")
    await world.until(lambda: world.told == ("False", "AnotherCluster"))
    assert world.condition("Stalled")["status"] == "True"
    found = world.row("us")
    assert (found["reachable"], found["counts"]) == (True, False)
    confirmed = found["clusterID"].lstrip("0")
    assert f'readmit: "{confirmed}"' in world.condition("Ready")["message"]
    world.want(world.cell("ap"), world.cell("eu"), world.cell("us", readmit="1234"))
    await world.until(lambda: world.status["observedGeneration"] == world.object["metadata"]["generation"])
    assert world.told == ("False", "AnotherCluster"), "another id confirms nothing"
    world.want(world.cell("ap"), world.cell("eu"), world.cell("us", readmit=confirmed))
    await world.settle(*NAMES)
    assert world.status["version"] == 5
    assert [write for write in world.writes if write.startswith("POST Event")] == ["POST Event "]


async def test_a_set_that_is_there_is_adopted_only_as_it_is(world: World) -> None:
    await world.start(*NAMES)
    async with world.library(*NAMES) as them:
        await them.set_up()
    world.make("eu", "us")
    await world.until(lambda: world.told == ("False", "OtherSet"))
    assert "ap" in world.condition("Ready")["message"]
    assert world.condition("Stalled")["status"] == "True"
    assert world.api.get("Deployment", "d", "regions-cells") is None
    world.want(*(world.cell(name) for name in NAMES))
    await world.settle(*NAMES)
    assert world.status["version"] == 1
    world.want(world.cell("eu"), world.cell("us"))
    await world.settle("eu", "us")


async def test_a_cluster_of_another_set_is_never_taken_over(world: World) -> None:
    await world.start(*NAMES)
    async with world.library("ap") as alone:
        theirs = await alone.set_up()
    world.make("eu", "us")
    await world.settle("eu", "us")
    world.want(*(world.cell(name) for name in NAMES))
    await world.until(lambda: world.told == ("False", "OtherSet"))
    for _ in range(3):
        await world.reconciler.run()
    async with world.library("ap") as alone:
        assert (await alone.survey()).set == theirs
    async with world.library("eu", "us") as them:
        found = (await them.survey()).set
        assert found is not None
        assert found.cells == {"eu", "us"}


async def test_the_commands_of_the_pods_do_their_work(world: World, tmp_path: Path) -> None:
    """The arguments of the containers are those of real commands, and the status shows what the courier does."""
    world.make(*NAMES, queues=[{"from": "eu", "to": "us"}])
    await world.start(*NAMES)
    await world.settle(*NAMES)
    async with world.library(*NAMES) as them:
        await them.queue("eu", "us").send(Message([Ops.put("/orders/7", "two chairs")]))
        await world.until(lambda: world.status["lag"] == 1)
        assert world.status["queues"] == [{"from": "eu", "to": "us", "waiting": 1, "refused": 0}]
        containers = world.api.named("Deployment", "d", "regions-cells")["spec"]["template"]["spec"]["containers"]
        assert [container["name"] for container in containers] == ["janitor", "courier-eu--us"]
        running = [Process(c["name"], c["args"], tmp_path / f"{c['name']}.log", 0) for c in containers]
        for process, container in zip(running, containers, strict=True):
            process.environment = {variable["name"]: variable["value"] for variable in container["env"]}
        for process in running:
            process.start()
        try:
            await world.until(lambda: world.status["lag"] == 0)
            found = await them.client("us").get("/orders/7")
            assert found is not None
            assert found.value == b"two chairs"
            assert all(process.running is not None and process.running.poll() is None for process in running)
        finally:
            codes = [process.stop() for process in running]
        assert codes[1] == 0
        assert codes[0] in (0, -signal.SIGTERM), "what the janitor does is seen late, so it may just have begun"


async def test_a_place_that_is_not_known_holds_up_no_other_cell(world: World) -> None:
    world.make("eu", "us")
    await world.start("eu", "us")
    spec = {"cells": [world.cell("eu"), {"name": "us", "cluster": "shop"}]}
    world.api.edit(world.object, lambda obj: obj.update(spec=spec))
    await world.until(lambda: world.told == ("False", "WaitingForCells"))
    assert world.row("us")["message"] == "there is no HoldfastCluster shop in this namespace"
    assert world.row("eu")["reachable"]
    tls = {"name": "us", "endpoints": world.clusters["us"].endpoints, "tls": {"secretName": "us-client"}}
    world.want(world.cell("eu"), tls)
    await world.until(lambda: world.row("us").get("message", "").startswith("there is no Secret us-client"))
    world.api.create("Secret", "d", {"metadata": {"name": "us-client"}, "data": {"ca.crt": "!"}})
    await world.until(lambda: "cannot be decoded" in world.row("us").get("message", ""))


async def test_an_object_that_cannot_be_used_says_why(world: World) -> None:
    made = world.make("eu", "us")
    world.api.edit(made, lambda obj: obj["spec"].update(queues=[{"from": "eu", "to": "mars"}]))
    await world.until(lambda: world.told == ("False", "InvalidSpec"))
    assert "mars is none of the cells eu, us" in world.condition("Ready")["message"]


async def test_the_loop_ends_with_the_object_and_closes_its_connections(world: World) -> None:
    world.make("eu", "us")
    await world.start("eu", "us")
    loops = cells_loops(world.kube, "holdfast:test")
    loops.wake("d", "regions")
    async with asyncio.timeout(60):
        while world.status.get("version") != 1:
            await asyncio.sleep(0.05)
        loop, task = loops._loops["d", "regions"]
        world.api.delete("HoldfastCells", "d", "regions")
        loops.wake("d", "regions")
        await task
    assert not loops._loops
    await loop.close()
    async with world.library("eu", "us") as them:
        assert (await them.survey()).set is not None, "the data in the cells stays"
