"""What goes wrong outside the operator's control: machines, containers, volumes, the API server, the operator itself.

No event here takes the data away from a cluster for good, unless it says so in `World.beyond_repair`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from holdfast_operator.sim.kube import Faults
from holdfast_operator.sim.machines import Machine, Runtime
from holdfast_operator.sim.members import CallFaults
from holdfast_operator.sim.objects import going, uid_of
from holdfast_operator.sim.operators import start, stop
from holdfast_operator.sim.raft import Disk
from holdfast_operator.sim.shape import NAMESPACE
from holdfast_operator.sim.world import World

Event = Callable[[World], Awaitable[None]]


async def node_dies(world: World) -> None:
    await _fail(world, alive=False)


async def node_is_cut_off(world: World) -> None:
    await _fail(world, alive=True)


async def kubelet_is_silent(world: World) -> None:
    """The node is NotReady for Kubernetes, but its pods run and reach one another."""
    await _fail(world, alive=True, reachable=True)


async def _fail(world: World, *, alive: bool, reachable: bool = False) -> None:
    machine = _machine(world)
    if machine is None:
        return
    world.trace(f"fault: {machine.name} alive={alive} reachable={reachable}")
    machine.alive, machine.reports, machine.reachable = alive, False, reachable
    world.disrupted()
    world.reached["node not ready"] += 1
    await world.sleep(world.rng.choice((4, 15, 90)))
    if machine.name in world.hardware.machines:
        world.trace(f"fault: {machine.name} is back")
        machine.alive = machine.reports = machine.reachable = True


async def node_is_deleted(world: World) -> None:
    machine = _machine(world)
    if machine is not None:
        await _delete_node(world, machine)


async def learner_is_lost(world: World) -> None:
    """The machine of a voter that is just joining is gone for good."""
    for _ in range(100):
        await world.sleep(0.5)
        group = world.current_group()
        for runtime, process in world.hardware.processes():
            if group is not None and process.disk.member_id in group.learners and runtime.machine.reports:
                world.reached["learner lost"] += 1
                await _delete_node(world, runtime.machine)
                return


async def _delete_node(world: World, machine: Machine) -> None:
    """The machine is gone for good, with its local volumes; another one comes."""
    if any(not may_lose(world, disk) for disk in _disks_on(world, machine)):
        return
    world.trace(f"fault: {machine.name} is gone for good")
    del world.hardware.machines[machine.name]
    machine.alive = False
    world.disrupted()
    world.reached["node gone"] += 1
    await world.sleep(world.rng.choice((1, 20)))
    world.api.delete("Node", "", machine.name)
    world.add_machine(f"{machine.name}x", machine.zone, {"tier": machine.labels["tier"]})


async def container_crashes(world: World) -> None:
    runtime = _voter(world)
    if runtime is not None:
        world.trace(f"fault: the container of {runtime.pod} crashes")
        runtime.process = None
        runtime.restarts += 1
        runtime.starts_at = world.now + world.rng.uniform(1, 15)
        world.disrupted()


async def kubelet_says_unready(world: World) -> None:
    """The member votes, but its probe fails."""
    runtime = _voter(world)
    if runtime is not None:
        world.trace(f"fault: {runtime.pod} is unready for the kubelet")
        runtime.unready_until = world.now + world.rng.uniform(5, 60)
        world.reached["unready and voting"] += 1


async def member_is_slow(world: World) -> None:
    group = world.current_group()
    if group is not None and group.members:
        slow = world.rng.choice(sorted(group.members))
        if slow != group.leader:
            group.slow.add(slow)
            await world.sleep(world.rng.uniform(5, 40))
            group.slow.discard(slow)


async def volume_is_lost(world: World) -> None:
    """The disk is empty after a restart."""
    runtime = _voter(world)
    if runtime is None or not may_lose(world, runtime.disk):
        return
    for volume in world.hardware.volumes.values():
        if volume.disk is runtime.disk:
            world.trace(f"fault: the volume of {runtime.pod} is emptied")
            volume.disk = runtime.disk = world.hardware.fresh_disk()
            runtime.process = None
            runtime.starts_at = world.now + 1
            world.disrupted()
            world.reached["volume lost"] += 1
            return


async def api_is_unreliable(world: World) -> None:
    faults, calls = world.faults, world.calls
    faults.error, faults.busy = world.rng.choice(((0.1, 0.0), (0.0, 0.2), (0.05, 0.05)))
    faults.lost_request = faults.lost_answer = world.rng.choice((0.0, 0.03))
    calls.lost_request = calls.lost_answer = world.rng.choice((0.0, 0.05))
    world.watch.dropped = world.rng.choice((0.0, 0.5))
    await world.sleep(world.rng.uniform(5, 30))
    calm(world)


async def events_are_refused(world: World) -> None:
    world.faults.events_forbidden = True
    world.reached["events refused"] += 1
    await world.sleep(world.rng.uniform(20, 60))
    world.faults.events_forbidden = False


async def operator_crashes(world: World) -> None:
    if world.operators:
        await stop(world, world.operators[0])
        world.trace("fault: the operator crashes")
        await world.sleep(world.rng.choice((0.1, 1, 10)))
    if not world.operators:
        start(world)


async def two_operators(world: World) -> None:
    if len(world.operators) == 1:
        second = start(world)
        world.reached["two operators"] += 1
        await world.sleep(world.rng.uniform(5, 40))
        if second in world.operators and len(world.operators) > 1:
            await stop(world, second)


def calm(world: World) -> None:
    """The API server and the network work again."""
    for name in ("error", "busy", "lost_request", "lost_answer"):
        setattr(world.faults, name, getattr(Faults(), name))
    for name in ("lost_request", "lost_answer"):
        setattr(world.calls, name, getattr(CallFaults(), name))
    world.watch.dropped = 0.0


FAULTS: tuple[tuple[int, Event], ...] = (
    (3, node_dies),
    (2, node_is_cut_off),
    (2, kubelet_is_silent),
    (1, node_is_deleted),
    (1, learner_is_lost),
    (3, container_crashes),
    (3, kubelet_says_unready),
    (2, member_is_slow),
    (2, volume_is_lost),
    (2, api_is_unreliable),
    (1, events_are_refused),
    (3, operator_crashes),
    (2, two_operators),
)


# ---- whom it may hit ---------------------------------------------------------------------------------------


def _machine(world: World) -> Machine | None:
    """A machine that works."""
    working = [m for m in world.hardware.machines.values() if m.alive and m.reports]
    return world.rng.choice(working) if working else None


def _voter(world: World) -> Runtime | None:
    running = [r for r, _ in world.hardware.processes() if r.component == "voter"]
    return world.rng.choice(running) if running else None


def _disks_on(world: World, machine: Machine) -> list[Disk]:
    return [volume.disk for volume in world.hardware.volumes.values() if volume.node == machine.name]


def may_lose(world: World, disk: Disk) -> bool:
    """Whether a majority of the voters' volumes still holds everything acknowledged, without this one and those that
    run nowhere now."""
    if disk.empty:
        return True
    group = world.groups.get(disk.cluster_id)
    if group is None or disk.member_id not in group.members:
        return True
    if disk.member_id in group.learners and not group.pending:
        return True  # it does not vote, and does not vote before it has caught up
    claims = world.api.list("PersistentVolumeClaim", NAMESPACE)
    lost = [world.hardware.volumes[uid_of(c)].disk for c in claims if going(c) and uid_of(c) in world.hardware.volumes]
    good = {
        process.disk.member_id
        for process in world.running(group).values()
        if process.disk.match >= group.acknowledged and not any(process.disk is other for other in (disk, *lost))
    }
    return not group.pending and not group.learners and group.answers(good)
