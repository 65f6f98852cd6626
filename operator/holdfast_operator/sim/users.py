"""What people do with their objects: edits, mistakes and their correction, deletion, drains, changes by hand."""

from __future__ import annotations

import functools
import re

from holdfast_operator.kube import ApiError
from holdfast_operator.observe import CLUSTER_ID
from holdfast_operator.plan.facts import ADOPT, WIPE
from holdfast_operator.resources.common import CLUSTER_LABEL, COMPONENT_LABEL
from holdfast_operator.sim.faults import Event, may_lose
from holdfast_operator.sim.machines import CRASHING, TYPO, Volume
from holdfast_operator.sim.objects import Object, condition, copy, going, name_of, uid_of
from holdfast_operator.sim.settled import FOREIGN_KEY
from holdfast_operator.sim.shape import NAMESPACE
from holdfast_operator.sim.world import World

# Reasons why only the user can go on.
FEWER = "there are fewer voters wanted than volumes of members"
TAKEN = "a Service of the user has a name that the operator needs"


def edit(world: World, what: str, **spec: object) -> None:
    """Change fields of the cluster's spec; None removes a field."""
    cluster = world.cluster()
    if cluster is None or going(cluster):
        return

    def change(obj: Object) -> None:
        for key, value in spec.items():
            if value is None:
                obj["spec"].pop(key, None)
            else:
                obj["spec"][key] = value

    world.trace(f"user: {what}")
    world.api.edit(cluster, change, "kubectl")


def edit_voters(world: World, what: str, **fields: object) -> None:
    cluster = world.cluster()
    if cluster is not None:
        if "replicas" in fields:
            world.not_to_take = 0
        voters = {key: v for key, v in {**cluster["spec"]["voters"], **fields}.items() if v is not None}
        edit(world, what, voters=voters)


async def new_version(world: World) -> None:
    version = world.rng.choice(("0.1.0", "0.2.0", "0.3.0"))
    edit(world, f"version {version}", version=version)


async def image_typo(world: World) -> None:
    image = world.rng.choice((TYPO, CRASHING))
    edit(world, f"image {image}", image=image)
    world.reached["image typo"] += 1
    await world.sleep(world.rng.choice((1, 5, 20, 60)))
    edit(world, "the image is corrected", image=None)


async def too_large_requests(world: World) -> None:
    edit_voters(world, "requests 64 CPUs", resources={"requests": {"cpu": "64"}})
    world.reached["unschedulable"] += 1
    await world.sleep(world.rng.choice((1, 5, 20)))
    edit_voters(world, "the requests are corrected", resources=None)


async def impossible_requests(world: World) -> None:
    """The API server refuses the StatefulSet."""
    edit_voters(world, "requests over limits", resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})
    await world.sleep(world.rng.choice((1, 5, 20)))
    edit_voters(world, "the requests are corrected", resources=None)


async def other_number(world: World) -> None:
    cluster = world.cluster()
    room = sum(1 for m in world.hardware.machines.values() if m.labels["tier"] == "core")
    if cluster is not None:
        replicas = world.rng.choice([n for n in (1, 3, 5) if n <= room])
        world.reached["scaled"] += replicas != cluster["spec"]["voters"]["replicas"]
        edit_voters(world, f"{replicas} voters", replicas=replicas)


async def pause(world: World) -> None:
    edit(world, "paused", paused=True)
    await world.sleep(world.rng.uniform(5, 20))
    edit(world, "continued", paused=False)


async def delete_child(world: World) -> None:
    name = world.shape.cluster
    kind, child = world.rng.choice(
        (
            ("Service", f"{name}-client"),
            ("Service", f"{name}-peers"),
            ("PodDisruptionBudget", f"{name}-voter"),
            ("StatefulSet", f"{name}-voter"),
            ("Secret", f"{name}-client-tls"),
        )
    )
    if world.api.get(kind, NAMESPACE, child) is not None:
        orphan = kind == "StatefulSet" and world.rng.random() < 0.5
        world.trace(f"user: deletes {kind} {child}{' --cascade=orphan' if orphan else ''}")
        world.api.delete(kind, NAMESPACE, child, orphan=orphan)
        world.reached["child deleted"] += 1
        world.disrupted()


async def change_child(world: World) -> None:
    service = world.api.get("Service", NAMESPACE, f"{world.shape.cluster}-client")
    if service is not None:
        world.trace("user: changes the selector of the client Service")
        world.api.edit(service, lambda obj: obj["spec"].update(selector={"app": "mine"}), "kubectl")


async def scale_by_hand(world: World) -> None:
    stateful = world.api.get("StatefulSet", NAMESPACE, f"{world.shape.cluster}-voter")
    if stateful is not None:
        replicas = world.rng.choice((1, 3, 5))
        world.trace(f"user: scales the StatefulSet to {replicas}")
        world.api.edit(stateful, lambda obj: obj["spec"].update(replicas=replicas), "kubectl")
        world.disrupted()


async def delete_pod(world: World) -> None:
    pods = world.voter_pods(with_going=False)
    if pods:
        pod = world.rng.choice(pods)
        world.trace(f"user: deletes the pod {name_of(pod)}")
        world.api.delete("Pod", NAMESPACE, name_of(pod))


async def delete_claim_and_pod(world: World) -> None:
    """As people do to replace a volume."""
    pods = world.voter_pods(with_going=False)
    if not pods:
        return
    pod = world.rng.choice(pods)
    claim = world.api.get("PersistentVolumeClaim", NAMESPACE, f"data-{name_of(pod)}")
    volume = world.hardware.volumes.get(uid_of(claim)) if claim is not None else None
    if claim is not None and volume is not None and may_lose(world, volume.disk):
        world.trace(f"user: deletes the claim and the pod of {name_of(pod)}")
        world.api.delete("PersistentVolumeClaim", NAMESPACE, name_of(claim))
        world.api.delete("Pod", NAMESPACE, name_of(pod))


async def drain(world: World) -> None:
    """kubectl drain: cordon, then evict until everything is gone; later uncordon."""
    nodes = [node for node in world.api.list("Node") if not node.get("spec", {}).get("unschedulable")]
    if not nodes:
        return
    node = world.rng.choice(nodes)
    world.trace(f"user: drains {name_of(node)}")
    world.api.edit(node, lambda obj: obj["spec"].update(unschedulable=True), "kubectl")
    world.reached["drain"] += 1
    for _ in range(10):
        for pod in world.api.list("Pod"):
            if pod["spec"].get("nodeName") == name_of(node) and not going(pod):
                try:
                    world.api.evict(pod["metadata"]["namespace"], name_of(pod))
                except ApiError as error:
                    if error.status != 429:
                        raise
        await world.sleep(3)
    world.api.edit(node, lambda obj: obj["spec"].update(unschedulable=False), "kubectl")


async def delete_and_create(world: World) -> None:
    """Delete the cluster object, and make it again; the volumes stay."""
    cluster = world.cluster()
    if cluster is None or going(cluster):
        return
    spec = cluster["spec"]
    world.trace("user: deletes the cluster object")
    world.api.delete("HoldfastCluster", NAMESPACE, name_of(cluster))
    world.disrupted()
    await world.sleep(world.rng.choice((0.1, 2, 15)))
    if world.rng.random() < 0.3:
        empty_volumes(world)
        await world.sleep(world.rng.choice((0.1, 5)))
    fewer = spec["voters"]["replicas"] > 1 and world.rng.random() < 0.3
    if fewer:
        spec = {**spec, "voters": {**spec["voters"], "replicas": spec["voters"]["replicas"] - 2}}
    world.trace(f"user: makes the cluster object again, with {spec['voters']['replicas']} voters")
    made = world.create_cluster({k: v for k, v in spec.items() if k != "paused"})
    world.reached["cluster made again"] += 1
    if fewer:
        world.beyond_repair.append(FEWER)
        world.not_to_take = _held_beyond(world, spec["voters"]["replicas"])
        await _answer(world, made)


def _held_beyond(world: World, wanted: int) -> int:
    """The id of the cluster that a claim beyond the wanted ones is marked with; 0 if there is none."""
    for number in range(wanted, 7):
        claim = world.api.get("PersistentVolumeClaim", NAMESPACE, f"data-{world.shape.cluster}-voter-{number}")
        mark = (claim["metadata"].get("annotations") or {}).get(CLUSTER_ID, "") if claim is not None else ""
        if mark and claim is not None and not going(claim):
            return int(mark, 16)
    return 0


async def _answer(world: World, made: Object) -> None:
    """The user reads what the operator asks, and answers by an annotation; or never does."""
    choice = world.rng.choice(("", ADOPT, WIPE))
    await world.sleep(world.rng.uniform(15, 40))
    cluster = world.cluster()
    ready = condition(cluster, "Ready") if cluster is not None and uid_of(cluster) == uid_of(made) else {}
    if choice and cluster is not None and ready.get("reason") == "MoreVolumesThanVoters":
        found = re.search("[0-9a-f]{16}", ready["message"])
        assert found is not None
        world.reached["adopted or wiped by annotation"] += 1
        world.beyond_repair.remove(FEWER)
        world.not_to_take = 0
        if choice == WIPE:
            give_up(world, int(found[0], 16))
        annotate(world, cluster, choice, found[0])


def give_up(world: World, cluster_id: int) -> None:
    world.wiped.add(cluster_id)
    if cluster_id in world.groups:
        world.groups[cluster_id].given_up = True


def annotate(world: World, cluster: Object, key: str, value: str) -> None:
    world.trace(f"user: annotates the cluster: {key}={value}")
    world.api.edit(cluster, lambda obj: obj["metadata"].setdefault("annotations", {}).update({key: value}), "kubectl")


def empty_volumes(world: World) -> None:
    """The user gives the data up."""
    world.trace("user: deletes all claims of the voters")
    for claim in world.api.list("PersistentVolumeClaim", NAMESPACE):
        if name_of(claim).startswith(f"data-{world.shape.cluster}-voter-") and not going(claim):
            world.api.delete("PersistentVolumeClaim", NAMESPACE, name_of(claim))
    for group in world.groups.values():
        group.given_up = True
    world.reached["data given up"] += 1


async def other_relays(world: World) -> None:
    for pool in world.api.list("HoldfastEdgePool", NAMESPACE):
        relays = world.rng.choice((0, 1, 2, 8))
        world.trace(f"user: {relays} relays in {name_of(pool)}")
        world.reached["other relays"] += relays != pool["spec"]["relaysPerSite"]
        world.api.edit(pool, functools.partial(_set, relaysPerSite=relays), "kubectl")


async def other_prefixes(world: World) -> None:
    for pool in world.api.list("HoldfastEdgePool", NAMESPACE):
        prefixes = world.rng.choice((["/config0/"], ["/config0/", "/config1/"], ["/"]))
        world.trace(f"user: the prefixes {prefixes} in {name_of(pool)}")
        world.reached["other prefixes"] += prefixes != pool["spec"]["prefixes"]
        world.api.edit(pool, functools.partial(_set, prefixes=prefixes), "kubectl")


def _set(obj: Object, **fields: object) -> None:
    obj["spec"].update(fields)


async def new_config_data(world: World) -> None:
    configs = world.api.list("HoldfastConfig", NAMESPACE)
    if configs:
        count = world.rng.choice((1, 5, 90))
        prefix = f"{world.rng.randrange(1000)}-"
        data = {f"{prefix}{number}": str(number) for number in range(count)}
        config = world.rng.choice(configs)
        world.trace(f"user: {count} new keys in {name_of(config)}")
        world.api.edit(config, lambda obj: obj["spec"].update(data=data), "kubectl")


async def foreign_key(world: World) -> None:
    """Somebody writes a key below the prefix of a config that is no text."""
    group = world.current_group()
    if group is not None and group.leader and world.shape.configs:
        world.trace("user: a key that is no UTF-8")
        world.put(group, FOREIGN_KEY, b"x")


async def newer_field(world: World) -> None:
    """A config is made with a field of a newer CRD."""
    if world.api.get("HoldfastConfig", NAMESPACE, "newer") is None:
        world.trace("user: a config with a field that this operator does not know")
        reference = {"clusterRef": {"name": world.shape.cluster}}
        spec = {**reference, "prefix": "/newer/", "data": {"a": "1"}, "encryption": {"mode": "None"}}
        world.api.create("HoldfastConfig", NAMESPACE, {"metadata": {"name": "newer"}, "spec": spec})


async def foreign_volume(world: World) -> None:
    """Somebody prepares the claim of the next ordinal, with the data of another cluster on it."""
    cluster = world.cluster()
    if cluster is None:
        return
    number = cluster["spec"]["voters"]["replicas"]
    name = f"data-{name_of(cluster)}-voter-{number}"
    if number <= 3 and world.api.get("PersistentVolumeClaim", NAMESPACE, name) is None:
        labels = {CLUSTER_LABEL: name_of(cluster), COMPONENT_LABEL: "voter"}
        claim_spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        world.trace(f"user: makes the claim {name} with data of another cluster")
        metadata = {"name": name, "labels": labels}
        claim = world.api.create("PersistentVolumeClaim", NAMESPACE, {"metadata": metadata, "spec": claim_spec})
        disk = world.hardware.fresh_disk()
        disk.cluster_id, disk.member_id = disk.volume_id ^ 0xF0F0, disk.volume_id
        world.hardware.volumes[uid_of(claim)] = Volume(name, "", disk)
        world.foreign.add(number)
        world.reached["foreign volume"] += 1
        if world.rng.random() < 0.7:
            await world.sleep(5)
            edit_voters(world, f"{number + 2} voters", replicas=number + 2)
            await world.sleep(20)
            cluster = world.cluster()
            there = world.api.get("PersistentVolumeClaim", NAMESPACE, name) is not None
            if cluster is not None and there and world.rng.random() < 0.4:
                give_up(world, disk.cluster_id)
                world.foreign.discard(number)
                annotate(world, cluster, WIPE, f"{disk.cluster_id:016x}")


async def name_is_taken(world: World) -> None:
    """Somebody has an object of the name that the operator needs; it may go later."""
    if world.api.get("Service", NAMESPACE, f"{world.shape.cluster}-client") is None:
        return
    world.trace("user: replaces the client Service by one of their own")
    world.api.delete("Service", NAMESPACE, f"{world.shape.cluster}-client")
    spec = {"selector": {"app": "mine"}, "ports": [{"port": 80}]}
    name = f"{world.shape.cluster}-client"
    made = world.api.create("Service", NAMESPACE, {"metadata": {"name": name}, "spec": spec}, "kubectl")
    if world.rng.random() < 0.3:
        world.beyond_repair.append(TAKEN)
        return
    await world.sleep(world.rng.uniform(5, 40))
    mine = world.api.get("Service", NAMESPACE, name)
    if mine is not None and uid_of(mine) == uid_of(made):
        world.trace("user: deletes their own Service")
        if mine["spec"]["selector"] != spec["selector"]:
            world.fail("touches only its own", f"the Service {name} of a user was changed")
        world.api.delete("Service", NAMESPACE, name)


async def damage_secret(world: World) -> None:
    """Somebody overwrites a certificate."""
    suffix = world.rng.choice(("peer-tls", "server-tls", "client-tls", "operator-tls"))
    secret = world.api.get("Secret", NAMESPACE, f"{world.shape.cluster}-{suffix}")
    if secret is not None and not going(secret):
        world.trace(f"user: damages the Secret {name_of(secret)}")
        world.reached["certificate damaged"] += 1
        world.api.edit(secret, lambda obj: obj["data"].update({"tls.crt": "ZGFtYWdlZA=="}), "kubectl")


async def lose_ca(world: World) -> None:
    """Somebody deletes the Secret of the CA, and restores it from a backup."""
    secret = world.api.get("Secret", NAMESPACE, f"{world.shape.cluster}-ca")
    if secret is None or going(secret):
        return
    world.trace("user: deletes the Secret of the CA")
    world.reached["CA lost"] += 1
    backup = copy(secret)
    world.api.delete("Secret", NAMESPACE, name_of(secret))
    await world.sleep(world.rng.uniform(10, 60))
    cluster = world.cluster()
    owners = {owner["uid"] for owner in backup["metadata"]["ownerReferences"]}
    gone = world.api.get("Secret", NAMESPACE, name_of(backup)) is None
    if cluster is not None and uid_of(cluster) in owners and gone:
        world.trace("user: restores the Secret of the CA")
        world.api.create("Secret", NAMESPACE, backup, "kubectl")


USERS: tuple[tuple[int, Event], ...] = (
    (4, new_version),
    (4, image_typo),
    (3, too_large_requests),
    (1, impossible_requests),
    (4, other_number),
    (1, pause),
    (2, delete_child),
    (1, change_child),
    (2, scale_by_hand),
    (2, delete_pod),
    (2, delete_claim_and_pod),
    (2, drain),
    (2, delete_and_create),
    (2, new_config_data),
    (1, other_relays),
    (1, other_prefixes),
    (1, foreign_key),
    (1, newer_field),
    (1, foreign_volume),
    (1, name_is_taken),
    (1, damage_secret),
    (1, lose_ca),
)
