"""The end of a run: with all faults over, is the wanted state reached, and does it cost no further write?

If not, a condition has to say what the user has to do, and there has to be something that only the user can do.
"""

from __future__ import annotations

from cryptography import x509

from holdfast_operator.resources.certificates import Unreadable, read
from holdfast_operator.sim.objects import Object, going, holds, labels_of, name_of, uid_of
from holdfast_operator.sim.raft import Group
from holdfast_operator.sim.shape import NAMESPACE
from holdfast_operator.sim.world import World

FOREIGN_KEY = b"/config0/\xff\xfe"  # a user writes it; it is no text


def missing(world: World) -> str:
    """What is not as wanted; empty if everything is."""
    cluster = world.cluster()
    if cluster is None:
        return ""
    return (
        _voters(world, cluster) or _children(world, cluster) or _pools(world) or _configs(world) or _conditions(cluster)
    )


def _voters(world: World, cluster: Object) -> str:
    wanted = cluster["spec"]["voters"]["replicas"]
    name = name_of(cluster)
    names = {f"{name}-voter-{number}" for number in range(wanted)}
    pods = {name_of(pod): pod for pod in world.voter_pods()}
    if set(pods) != names:
        return f"there are the pods {sorted(pods)}, wanted are {sorted(names)}"
    image = image_of(cluster)
    for pod in pods.values():
        if going(pod) or not holds(pod, "Ready"):
            return f"{name_of(pod)} is not ready"
        container = pod["spec"]["containers"][0]
        if container["image"] != image:
            return f"{name_of(pod)} runs {container['image']}, wanted is {image}"
        resources = cluster["spec"]["voters"].get("resources")
        if resources and container.get("resources") != resources:  # without, the rendering has defaults
            return f"{name_of(pod)} has other resources than wanted"
    return _membership(world.current_group(), names) or _volumes(world, names)


def held_up(world: World) -> str:
    """What is not as wanted although it waits for nobody: a volume of another cluster, or a name that is taken, holds
    up only what needs it."""
    cluster = world.cluster()
    group = world.current_group()
    # Neither of two voters can be spared. One that is alone can: there is nobody to keep a quorum with.
    few = group is not None and sum(m.voter for m in group.members.values()) == 2
    for number in range(cluster["spec"]["voters"]["replicas"] if cluster is not None else 0):
        pod = world.api.get("Pod", NAMESPACE, f"{world.shape.cluster}-voter-{number}")
        if number in world.foreign or cluster is None:
            continue
        if pod is None or not holds(pod, "Ready"):
            return f"the voter {number} is not ready"
        if pod["spec"]["containers"][0]["image"] != image_of(cluster) and not few:
            return f"the voter {number} is outdated"
    return ""


def _membership(group: Group | None, names: set[str]) -> str:
    if group is None:
        return "no cluster is formed"
    if not group.leader:
        return "the cluster has no leader"
    voters = {m.name for m in group.members.values() if m.voter}
    if voters != names or group.learners:
        return f"the voters are {sorted(voters)}, and there are {len(group.learners)} learners"
    return ""


def _volumes(world: World, names: set[str]) -> str:
    """A volume of a removed member has to be gone. One that was never used may stay: nobody knows what it holds."""
    for claim in world.api.list("PersistentVolumeClaim", NAMESPACE):
        name, volume = name_of(claim), world.hardware.volumes.get(uid_of(claim))
        unused = name.startswith(f"data-{world.shape.cluster}-voter-") and name.removeprefix("data-") not in names
        if unused and volume is not None and volume.disk.cluster_id in world.groups:
            return f"the volume {name} of a removed member is left"
    return ""


def _children(world: World, cluster: Object) -> str:
    name, wanted = name_of(cluster), cluster["spec"]["voters"]["replicas"]
    stateful = world.api.get("StatefulSet", NAMESPACE, f"{name}-voter")
    if stateful is None or stateful["spec"]["replicas"] != wanted:
        return "the StatefulSet is gone or has other replicas than wanted"
    for suffix in ("client", "peers", "edge"):
        service = world.api.get("Service", NAMESPACE, f"{name}-{suffix}")
        if service is None:
            return f"the Service {name}-{suffix} is gone"
        if "holdfast.dev/cluster" not in service["spec"].get("selector", {}):
            return f"the Service {name}-{suffix} selects other pods"
    budget = world.api.get("PodDisruptionBudget", NAMESPACE, f"{name}-voter")
    if wanted == 1 and budget is not None:
        return "a single voter has a disruption budget, and its node can never be drained"
    if wanted > 1 and (budget is None or budget["spec"].get("minAvailable") != wanted // 2 + 1):
        return "the disruption budget is gone or wrong"
    if cluster["spec"]["tls"]["mode"] == "SelfManaged":
        for suffix in ("ca", "server-tls", "peer-tls", "client-tls", "operator-tls"):
            secret = world.api.get("Secret", NAMESPACE, f"{name}-{suffix}")
            if secret is None:
                return f"the Secret {name}-{suffix} is gone"
            try:
                read(secret)
            except Unreadable as error:
                return f"the Secret {name}-{suffix}: {error}"
    return ""


def _pools(world: World) -> str:
    for pool in world.api.list("HoldfastEdgePool", NAMESPACE):
        nodes = {name_of(n) for n in world.api.list("Node", "", pool["spec"]["placement"]["nodeSelector"])}
        pods = [p for p in world.api.list("Pod", NAMESPACE, {"holdfast.dev/pool": name_of(pool)}) if not going(p)]
        on = {p["spec"].get("nodeName") for p in pods if holds(p, "Ready")}
        if on != nodes or len(pods) != len(nodes):
            return f"pool {name_of(pool)} runs on {sorted(str(n) for n in on)}, wanted is {sorted(nodes)}"
        cluster = world.cluster()
        image = image_of(cluster) if cluster is not None else ""
        old = [name_of(p) for p in pods if p["spec"]["containers"][0]["image"] != image]
        if old:
            return f"the replicas {old} of pool {name_of(pool)} are outdated"
        if what := _relays(world, pool, pods):
            return what
        if not holds(pool, "Fresh"):
            return f"the pool {name_of(pool)} is not Fresh"
    return ""


def _relays(world: World, pool: Object, pods: list[Object]) -> str:
    """Exactly the wanted number of replicas are relays, and their Service leads to them; the others follow it. All hold
    the wanted prefixes."""
    name, wanted = name_of(pool), min(pool["spec"]["relaysPerSite"], len(pods))
    service = world.api.get("Service", NAMESPACE, f"{name}-relay")
    if (service is not None) != (wanted > 0):
        return f"the Service of the relays of pool {name} is {'there' if service is not None else 'not there'}"
    chosen = service["spec"]["selector"] if service is not None else {"holdfast.dev/relay": "true"}
    relays = [name_of(p) for p in pods if chosen.items() <= labels_of(p).items()]
    if len(relays) != wanted:
        return f"the relays of pool {name} are {relays}, wanted are {wanted}"
    if wanted and world.shape.tls:
        for relay in relays:
            secret = world.api.get("Secret", NAMESPACE, f"{relay.removesuffix('-0')}-tls")
            if secret is None or f"{name}-relay.{NAMESPACE}.svc" not in _names(secret):
                return f"the certificate of {relay} has not the name of the Service of the relays"
    prefixes = [f"--prefix={prefix}" for prefix in sorted(pool["spec"]["prefixes"])]
    for pod in pods:
        arguments = pod["spec"]["containers"][0]["args"]
        below = any(argument.startswith(f"--parents={name}-relay.") for argument in arguments)
        if below != (wanted > 0 and name_of(pod) not in relays):
            return f"{name_of(pod)} {'follows' if below else 'does not follow'} the relays of its pool"
        if [argument for argument in arguments if argument.startswith("--prefix=")] != prefixes:
            return f"{name_of(pod)} does not hold the prefixes {pool['spec']['prefixes']}"
    return ""


def _names(secret: Object) -> list[str]:
    found = read(secret)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


def _configs(world: World) -> str:
    group = world.current_group()
    for config in world.api.list("HoldfastConfig", NAMESPACE):
        spec = config["spec"]
        if group is None:
            return "no cluster is there for the configs"
        for key, value in spec["data"].items():
            kv = group.data.keys.get((spec["prefix"] + key).encode())
            if kv is None or kv.value != value.encode():
                return f"the key {key} of the config {name_of(config)} is not applied"
        prefix, wanted = spec["prefix"].encode(), {(spec["prefix"] + key).encode() for key in spec["data"]}
        left = [key for key in group.data.keys if key.startswith(prefix) and key not in wanted]
        if any(key != FOREIGN_KEY for key in left):
            return f"the key {left[0]!r} is no longer in the config {name_of(config)}, and was not removed"
        if not holds(config, "Applied"):
            return f"the config {name_of(config)} is not Applied"
    return ""


def _conditions(cluster: Object) -> str:
    status = cluster.get("status") or {}
    if status.get("observedGeneration") != cluster["metadata"]["generation"]:
        return "the status is of an older generation"
    several = cluster["spec"]["voters"]["replicas"] > 1
    for type_ in ("Available", "UpToDate", *(["FaultTolerant"] if several else [])):
        if not holds(cluster, type_):
            return f"the condition {type_} is not True"
    return ""


def image_of(cluster: Object) -> str:
    spec = cluster["spec"]
    return spec.get("image") or f"holdfast:{spec['version']}"


def told(cluster: Object) -> str:
    """Everything that the conditions tell the user."""
    return "\n".join(c["message"] for c in (cluster.get("status") or {}).get("conditions") or [])


def says_trouble(cluster: Object) -> str:
    """The condition that tells the user that something is wrong; empty if there is none."""
    for condition in (cluster.get("status") or {}).get("conditions") or []:
        bad = {"Ready": "False", "Available": "False", "Stalled": "True", "UpToDate": "False", "Paused": "True"}
        if bad.get(condition["type"]) == condition["status"]:
            return f"{condition['type']}={condition['status']} {condition['reason']}: {condition['message']}"
    return ""
