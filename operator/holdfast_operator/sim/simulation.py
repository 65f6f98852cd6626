"""One seed: a world, a time of faults and edits, and an end at which everything has to be as wanted again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from holdfast_operator.observe import CLUSTER_ID
from holdfast_operator.plan.facts import WIPE
from holdfast_operator.reconcile_cluster import LATER
from holdfast_operator.sim.clock import VirtualLoop
from holdfast_operator.sim.faults import FAULTS, Event, calm
from holdfast_operator.sim.invariants import Invariants
from holdfast_operator.sim.objects import Object, name_of, uid_of
from holdfast_operator.sim.operators import Log, start, stop
from holdfast_operator.sim.settled import held_up, missing, says_trouble, told
from holdfast_operator.sim.shape import EDGE, NAMESPACE, Shape, shape_of
from holdfast_operator.sim.users import TAKEN, USERS, edit, edit_voters
from holdfast_operator.sim.world import World

BIRTH_SECONDS = 90.0
SETTLE_SECONDS = 300.0
QUIET_SECONDS = LATER + 10.0  # every object has at least one pass in it
FOREIGN = "a volume at a wanted ordinal is of another cluster"


@dataclass(slots=True)
class Result:
    seed: int
    violation: tuple[str, str] | None
    lines: list[str]
    reached: Counter[str] = field(default_factory=Counter)
    simulated: float = 0.0
    seconds: float = 0.0
    events: tuple[str, ...] = ()


def simulate(
    seed: int, *, shape: Shape | None = None, events: tuple[str, ...] | None = None, keep: bool = False
) -> Result:
    """Run one seed. `events`: instead of those that the seed chooses, by name."""
    began = time.process_time()
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(_run(seed, shape or shape_of(seed), events, keep))
    finally:
        loop.close()
    result.seconds = time.process_time() - began
    return result


async def _run(seed: int, shape: Shape, events: tuple[str, ...] | None, keep: bool) -> Result:
    world = World(seed, shape, keep_all=keep)
    invariants = world.judge = Invariants(world)
    logger, handler = logging.getLogger("holdfast.operator"), Log(world)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    chosen = _named(events) if events is not None else _choose(Random(f"{seed}/events"))
    try:
        await _live(world, invariants, chosen)
    finally:
        for operator in list(world.operators):
            await stop(world, operator)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        logger.handlers = []
    names = tuple(event.__name__ for _, event in chosen)
    return Result(seed, world.violation, list(world.lines), world.reached, world.now, events=names)


def _choose(rng: Random) -> list[tuple[float, Event]]:
    """Events and when they begin, in seconds after the first one could."""
    weights, kinds = zip(*FAULTS, *USERS, strict=True)
    count, span = rng.choice((0, 1, 2, 2, 3, 3, 4, 6, 9)), rng.choice((10, 60, 120))
    return sorted(((rng.random() * span, event) for event in rng.choices(kinds, weights, k=count)), key=lambda e: e[0])


def _named(names: tuple[str, ...]) -> list[tuple[float, Event]]:
    by_name = {event.__name__: event for _, event in (*FAULTS, *USERS)}
    return [(10.0 * number, by_name[name]) for number, name in enumerate(names)]


async def _live(world: World, invariants: Invariants, events: list[tuple[float, Event]]) -> None:
    rng = Random(f"{world.seed}/life")
    start(world)
    world.create_cluster(world.shape.spec())
    _create_dependents(world)
    if rng.random() < world.shape.born_first:
        await _until_wanted(world, BIRTH_SECONDS)
        if world.violation is None and missing(world):
            world.fail("is born", missing(world))
    tasks = [asyncio.ensure_future(_later(delay, event, world)) for delay, event in events]
    while world.violation is None and not all(task.done() for task in tasks):
        await world.run(1.0)
    for task in tasks:
        if not task.done():
            task.cancel()
        elif task.exception() is not None:
            raise RuntimeError("an event of the simulation failed") from task.exception()
    if world.violation is None:
        await _end(world, invariants)


async def _later(delay: float, event: Event, world: World) -> None:
    await asyncio.sleep(delay)
    await event(world)


def _create_dependents(world: World) -> None:
    reference = {"clusterRef": {"name": world.shape.cluster}}
    for number in range(world.shape.edges):
        world.add_machine(f"edge-{number}", "zone-edge", EDGE)
    if world.shape.edges:
        spec = {**reference, "placement": {"nodeSelector": EDGE}, "prefixes": ["/config0/"]}
        spec |= {"relaysPerSite": world.shape.relays, "stalenessTargetSeconds": 30}
        world.api.create(
            "HoldfastEdgePool", NAMESPACE, {"metadata": {"name": "berlin"}, "spec": {**spec, "storage": {}}}
        )
    for number in range(world.shape.configs):
        spec = {**reference, "prefix": f"/config{number}/", "data": {"a": "1", "b": "2"}}
        world.api.create("HoldfastConfig", NAMESPACE, {"metadata": {"name": f"config{number}"}, "spec": spec})


# ---- the end -----------------------------------------------------------------------------------------------


async def _end(world: World, invariants: Invariants) -> None:
    """Everything works again. The wanted state has to be reached, and then nothing may be written any more."""
    _heal(world)
    world.trace("the end: everything works again")
    if not await _until_wanted(world, SETTLE_SECONDS):
        if world.violation is None:
            _unsettled(world)
        return
    world.reached["settled"] += 1
    await world.run(LATER + 5.0)  # a change that no event tells of is noticed at the next pass
    before = invariants.writes
    await world.run(QUIET_SECONDS)
    writes = invariants.writes - before
    if writes and world.violation is None:
        world.fail(
            "settled costs no write",
            f"{writes} writes in {QUIET_SECONDS:.0f} s, the last: {invariants.last_write}",
        )
    if world.violation is None and missing(world):
        world.fail("stays settled", missing(world))


def _unsettled(world: World) -> None:
    cluster, what = world.cluster(), missing(world)
    if cluster is not None and any(n < cluster["spec"]["voters"]["replicas"] for n in world.foreign):
        world.beyond_repair.append(FOREIGN)
    if cluster is not None and _held_beyond(world, cluster):
        world.beyond_repair.append("volumes of more voters than are wanted wait to be adopted or wiped")
    if cluster is not None and _bound_to_one_node(world, cluster):
        world.beyond_repair.append("the volumes of two voters are on one node, and they must not share it")
    if cluster is not None and _earlier_on_lost_node(world, cluster):
        world.beyond_repair.append("a volume of an earlier object is on a node that is gone, and no cluster is formed")
    trouble = says_trouble(cluster) if cluster is not None else ""
    # Before a cluster is taken over, volumes of two clusters are a question about all of it. So is one that was taken
    # over from the foreign volume itself, whose other members are not here.
    taken_over = cluster is not None and (cluster.get("status") or {}).get("bootstrapped")
    taken_over = taken_over and world.current_group() is not None
    narrow = taken_over and world.beyond_repair and all(why in (FOREIGN, TAKEN) for why in world.beyond_repair)
    if narrow and held_up(world):
        world.fail("what waits holds up nothing else", f"{held_up(world)}, because {world.beyond_repair[0]}")
    if not world.beyond_repair:
        world.fail("reaches the wanted state", f"{what}; it says {trouble or 'nothing'}")
    elif cluster is not None and FOREIGN in world.beyond_repair and WIPE not in told(cluster):
        world.fail("says what is wrong", f"{what}, because {FOREIGN}, and no condition says how to go on: {trouble}")
    elif not trouble:
        world.fail("says what is wrong", f"{what}, because {world.beyond_repair[0]}, and no condition says so")
    else:
        world.reached["the user has to act, and is told"] += 1


def _bound_to_one_node(world: World, cluster: Object) -> bool:
    """Whether a voter cannot be scheduled, because its volume is on a node that another voter's volume is on. Only the
    user can give one of them up."""
    if cluster["spec"]["voters"]["placement"].get("allowSharedNodes"):
        return False
    nodes = []
    for number in range(cluster["spec"]["voters"]["replicas"]):
        claim = world.api.get("PersistentVolumeClaim", NAMESPACE, f"data-{name_of(cluster)}-voter-{number}")
        volume = world.hardware.volumes.get(uid_of(claim)) if claim is not None else None
        if volume is not None and volume.node:
            nodes.append(volume.node)
    return len(set(nodes)) < len(nodes)


def _earlier_on_lost_node(world: World, cluster: Object) -> bool:
    """Whether a cluster that is not formed has a volume that was there before it, and that nobody can read."""
    if (cluster.get("status") or {}).get("bootstrapped"):
        return False
    for number in range(cluster["spec"]["voters"]["replicas"]):
        claim = world.api.get("PersistentVolumeClaim", NAMESPACE, f"data-{name_of(cluster)}-voter-{number}")
        volume = world.hardware.volumes.get(uid_of(claim)) if claim is not None else None
        gone = volume is not None and bool(volume.node) and volume.node not in world.hardware.machines
        if claim is not None and gone and _created(claim) <= _created(cluster):
            return True
    return False


def _created(thing: Object) -> str:
    return str(thing["metadata"]["creationTimestamp"])


def _held_beyond(world: World, cluster: Object) -> bool:
    """Whether a cluster that is not taken over has volumes of members beyond the wanted number. Only the user can say
    what is to become of them."""
    if (cluster.get("status") or {}).get("bootstrapped"):
        return False
    wanted, name = cluster["spec"]["voters"]["replicas"], f"data-{name_of(cluster)}-voter-"
    claims = [c for c in world.api.list("PersistentVolumeClaim", NAMESPACE) if name_of(c).startswith(name)]
    marked = [c for c in claims if CLUSTER_ID in (c["metadata"].get("annotations") or {})]
    return any(int(name_of(c).removeprefix(name)) >= wanted for c in marked)


def _heal(world: World) -> None:
    calm(world)
    world.faults.events_forbidden = False
    edit(world, "everything valid", image=None, paused=False)
    edit_voters(world, "no resources", resources=None)
    for machine in world.hardware.machines.values():
        machine.alive = machine.reports = machine.reachable = True
    for node in world.api.list("Node"):
        if node["spec"].get("unschedulable"):
            world.api.edit(node, lambda obj: obj["spec"].update(unschedulable=False), "kubectl")
        if name_of(node) not in world.hardware.machines:
            world.api.delete("Node", "", name_of(node))
    for group in world.groups.values():
        group.slow.clear()
    for runtime in world.hardware.runtimes.values():
        runtime.unready_until = 0.0
    if not world.operators:
        start(world)


async def _until_wanted(world: World, seconds: float) -> bool:
    until = world.now + seconds
    while world.now < until and world.violation is None:
        await world.run(2.0)
        if not missing(world):
            return world.violation is None
    return False
