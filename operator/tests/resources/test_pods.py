"""What the newest rendering adds, and what users add to pods."""

from __future__ import annotations

from typing import Any

import pytest
from holdfast.cli.parsing import parse_urls
from holdfast.edge.offline import parse_policy
from holdfast_operator.model.cluster import ClusterSpec
from holdfast_operator.model.pool import PoolSpec, SiteKeys
from holdfast_operator.resources import cluster, pool
from holdfast_operator.resources.common import TEMPLATE_LABEL, host_port, template_of
from holdfast_operator.resources.overlay import merged
from holdfast_operator.resources.rendering import NEWEST, OLDEST

from tests.resources.cases import CLUSTER, IMAGE, POOL, POOLS

Object = dict[str, Any]


def spec(**voters: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"version": "0.2.0", "voters": voters})


def edge_spec(**fields: Any) -> PoolSpec:
    return PoolSpec.model_validate({**POOLS["plain"], **fields})


def voter(rendering: int = NEWEST, **voters: Any) -> Object:
    return cluster.voter_pod("shop", "default", spec(**voters), IMAGE, rendering)


def edge(rendering: int = NEWEST, **fields: Any) -> Object:
    return pool.replica_pod("berlin", "default", edge_spec(**fields), spec(), IMAGE, rendering)


def arguments(pod: Object) -> list[str]:
    found: list[str] = pod["containers"][0]["args"]
    return found


def value(pod: Object, flag: str) -> str:
    (found,) = [a.partition("=")[2] for a in arguments(pod) if a.startswith(f"{flag}=")]
    return found


# ---- defaults ----------------------------------------------------------------------------------------------


def test_pods_ask_for_what_they_need() -> None:
    for pod in (voter(), edge()):
        resources = pod["containers"][0]["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}
        assert resources["limits"].keys() == {"memory"}  # a limit of the CPU would slow elections down
    assert voter(resources={"limits": {"memory": "1Gi"}})["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}
    assert edge(resources={})["containers"][0]["resources"] == {}


def test_the_loss_of_a_node_costs_no_majority() -> None:
    nodes, zones = voter()["topologySpreadConstraints"]
    assert (nodes["whenUnsatisfiable"], nodes["minDomains"], nodes["maxSkew"]) == ("DoNotSchedule", 3, 1)
    assert nodes["nodeTaintsPolicy"] == "Honor"
    assert (zones["topologyKey"], zones["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")


@pytest.mark.parametrize("rendering", [OLDEST, NEWEST])
def test_voters_share_a_node_if_the_user_says_so(rendering: int) -> None:
    nodes, _ = voter(rendering, placement={"allowSharedNodes": True})["topologySpreadConstraints"]
    assert nodes["whenUnsatisfiable"] == "ScheduleAnyway"
    assert "minDomains" not in nodes  # the API server refuses it unless scheduling may fail


def test_processes_listen_on_both_families() -> None:
    for pod in (voter(), edge()):
        for flag in ("--listen-client-urls", "--listen-metrics-urls"):
            (url,) = parse_urls(value(pod, flag))
            assert "//[::]:" in url
    for service in (*cluster.services(CLUSTER, NEWEST), pool.service(POOL, edge_spec(), NEWEST)):
        assert service["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    for service in (*cluster.services(CLUSTER), pool.service(POOL, edge_spec())):
        assert "ipFamilyPolicy" not in service["spec"]  # older pods listen on IPv4 alone


def test_addresses_of_both_families_get_a_port() -> None:
    assert host_port("10.0.0.1", 2379) == "10.0.0.1:2379"
    assert host_port("fd00::1", 2379) == "[fd00::1]:2379"
    assert host_port("shop-client", 2379) == "shop-client:2379"


@pytest.mark.parametrize(
    ("voters", "quota"),
    [
        ({}, 805_306_368),
        ({"storage": {"size": "100Gi"}}, 75 << 30),
        ({"quotaBytes": 1 << 33}, 1 << 33),
        ({"storage": {"size": "1"}}, 1 << 20),  # 0 would mean the default of 2 GiB
    ],
)
def test_the_quota_follows_the_volume(voters: Object, quota: int) -> None:
    assert value(voter(**voters), "--quota-backend-bytes") == str(quota)


def expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of an argument: third_party/forked/golang/expansion, in few words."""
    out, at = "", 0
    while at < len(text):
        if text[at] != "$" or at + 1 == len(text):
            out, at = out + text[at], at + 1
        elif text[at + 1] == "$":
            out, at = out + "$", at + 2
        elif text[at + 1] == "(" and ")" in text[at:]:
            end = text.index(")", at)
            name = text[at + 2 : end]
            out, at = out + variables.get(name, f"$({name})"), end + 1
        else:
            out, at = out + text[at : at + 2], at + 2
    return out


@pytest.mark.parametrize("prefix", ["/$(POD_NAME)/", "/price$$/", "/$$(POD_NAME)/", "/$", "/$$$", "/a$(", "/plain/"])
def test_prefixes_are_taken_literally(prefix: str) -> None:
    assert expanded(value(edge(prefixes=[prefix]), "--prefix"), {"POD_NAME": "p"}) == prefix
    assert expanded(value(edge(), "--name"), {"POD_NAME": "p"}) == "p"


# ---- what users add ----------------------------------------------------------------------------------------

ADDED: Object = {
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "critical",
    "podLabels": {"team": "shop"},
    "podAnnotations": {"example.com/scrape": "yes"},
    "podOverlay": {
        "terminationGracePeriodSeconds": 60,
        "securityContext": {"runAsUser": None, "fsGroup": 1000},
        "containers": [
            {
                "name": "holdfast",
                "env": [{"name": "TZ", "value": "UTC"}],
                "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
            },
            {"name": "sidecar", "image": "side/car"},
        ],
        "volumes": [{"name": "extra", "emptyDir": {}}],
    },
}


@pytest.mark.parametrize("rendering", [OLDEST, NEWEST])
def test_users_add_to_pods_of_any_rendering(rendering: int) -> None:
    of_voters = cluster.voters(CLUSTER, spec(**ADDED), IMAGE, 3, rendering)
    of_replicas = pool.replica(POOL, edge_spec(**ADDED), spec(), IMAGE, "edge-1", rendering)
    for made in (of_voters, of_replicas):
        template = made["spec"]["template"]
        assert template["metadata"]["labels"]["team"] == "shop"
        assert template["metadata"]["annotations"]["example.com/scrape"] == "yes"
        assert "team" not in made["spec"]["selector"]["matchLabels"]
        pod = template["spec"]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["priorityClassName"] == "critical"
        assert pod["terminationGracePeriodSeconds"] == 60
        assert "runAsUser" not in pod["securityContext"]
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["fsGroup"]) == (True, 1000)
        ours, sidecar = pod["containers"]
        assert (ours["name"], ours["image"], sidecar) == ("holdfast", IMAGE, {"name": "sidecar", "image": "side/car"})
        assert [e["name"] for e in ours["env"]] == ["POD_NAME", "TZ"]
        assert {"name": "extra", "mountPath": "/extra"} in ours["volumeMounts"]
        assert {"name": "data", "mountPath": "/var/lib/holdfast"} in ours["volumeMounts"]
        assert [v["name"] for v in pod["volumes"]][-1] == "extra"


@pytest.mark.parametrize("field", sorted(ADDED))
def test_each_addition_makes_pods_outdated(field: str) -> None:
    plain = cluster.voters(CLUSTER, spec(), IMAGE, 3, NEWEST)
    changed = cluster.voters(CLUSTER, spec(**{field: ADDED[field]}), IMAGE, 3, NEWEST)
    assert template_of(plain) != template_of(changed)
    assert template_of(changed) == cluster.voter_template(
        "shop", "default", spec(**{field: ADDED[field]}), IMAGE, NEWEST
    )


def test_replicas_pull_the_image_as_voters_do() -> None:
    secured = spec(imagePullSecrets=[{"name": "registry"}])
    made = pool.replica_pod("berlin", "default", edge_spec(), secured, IMAGE, NEWEST)
    assert made["imagePullSecrets"] == [{"name": "registry"}]
    own = edge_spec(imagePullSecrets=[{"name": "own"}])
    assert pool.replica_pod("berlin", "default", own, secured, IMAGE)["imagePullSecrets"] == [{"name": "own"}]


def test_merging_changes_neither_side() -> None:
    base: Object = {"a": {"b": 1}, "env": [{"name": "x", "value": "1"}], "list": [1]}
    overlay: Object = {"a": {"c": 2, "b": None}, "env": [{"name": "x", "value": "2"}, {"name": "y"}], "list": [2]}
    assert merged(base, overlay) == {
        "a": {"c": 2},
        "env": [{"name": "x", "value": "2"}, {"name": "y"}],
        "list": [2],
    }
    assert base == {"a": {"b": 1}, "env": [{"name": "x", "value": "1"}], "list": [1]}
    assert overlay["a"] == {"c": 2, "b": None}


# ---- one replica for each node -----------------------------------------------------------------------------


def test_a_replica_is_bound_to_its_node() -> None:
    node = "ip-10-0-0-1." + "very-long-label." * 12 + "example"
    long_name = {**POOL, "metadata": {**POOL["metadata"], "name": "b" * 40}}
    made = pool.replica(long_name, edge_spec(), spec(), IMAGE, node, NEWEST)
    name = made["metadata"]["name"]
    # The StatefulSet's controller makes a label of the name, with a hyphen and ten digits.
    assert len(name) <= 52
    assert name == f"{'b' * 40}-{pool.node_hash(node)}"
    assert made["spec"]["replicas"] == 1
    pod = made["spec"]["template"]
    for about in (made["metadata"], pod["metadata"]):
        assert about["annotations"]["holdfast.dev/node"] == node
        assert about["labels"]["holdfast.dev/node-hash"] == pool.node_hash(node)
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
    }
    assert "nodeSelector" not in pod["spec"]
    assert value(pod["spec"], "--name") == "$(POD_NAME)"


def test_replicas_of_two_nodes_select_different_pods() -> None:
    one, two = (pool.replica(POOL, edge_spec(), spec(), IMAGE, node) for node in ("a", "b"))
    assert one["metadata"]["name"] != two["metadata"]["name"]
    for made, other in ((one, two), (two, one)):
        selected = made["spec"]["selector"]["matchLabels"].items()
        assert selected <= made["spec"]["template"]["metadata"]["labels"].items()
        assert not selected <= other["spec"]["template"]["metadata"]["labels"].items()
        # The Service and disruption checks of the pool find both.
        of_pool = pool.service(POOL, edge_spec())["spec"]["selector"].items()
        assert of_pool <= made["spec"]["template"]["metadata"]["labels"].items()


def test_a_replica_has_its_own_certificate_if_the_caller_says_so() -> None:
    name = pool.replica_on("berlin", "edge-1")
    own = pool.replica(POOL, edge_spec(), spec(), IMAGE, "edge-1", NEWEST, tls_secret=pool.replica_secret(name))
    shared = pool.replica(POOL, edge_spec(), spec(), IMAGE, "edge-1", NEWEST)
    secrets = [
        [v["secret"]["secretName"] for v in made["spec"]["template"]["spec"]["volumes"] if "secret" in v]
        for made in (own, shared)
    ]
    assert secrets == [[f"{name}-tls"], ["shop-edge-tls"]]
    assert own["spec"]["template"]["metadata"]["labels"][TEMPLATE_LABEL] != template_of(shared)


def test_what_is_served_while_a_replica_is_cut_off() -> None:
    rules = [
        {"prefix": "/stores/berlin/$(X)/", "policy": "RequireOnline"},
        {"prefix": "/stores/berlin/prices/", "policy": "ServeUntil", "seconds": 3600},
        {"prefix": "/stores/berlin/", "policy": "Serve"},
    ]
    made = pool.replica(POOL, edge_spec(prefixes=["/stores/berlin/"], offline=rules), spec(), IMAGE, "edge-1", NEWEST)
    told = [a for a in arguments(made["spec"]["template"]["spec"]) if a.startswith("--offline=")]
    assert told == [
        "--offline=/stores/berlin/$$(X)/=require-online",
        "--offline=/stores/berlin/prices/=serve-until=3600s",
        "--offline=/stores/berlin/=serve",
    ]
    assert [parse_policy(a.removeprefix("--offline=")).kind.value for a in told] == [
        "require-online",
        "serve-until",
        "serve",
    ]


# ---- relays ------------------------------------------------------------------------------------------------


def relay_and_below(**fields: Any) -> tuple[Object, Object]:
    """The templates of a relay and of a replica that follows relays."""
    relay, below = (
        pool.replica(POOL, edge_spec(relaysPerSite=1, **fields), spec(), IMAGE, "edge-1", NEWEST, relay=is_relay)
        for is_relay in (True, False)
    )
    return relay["spec"]["template"], below["spec"]["template"]


def test_others_follow_the_relays_if_they_can_and_relays_follow_the_cluster() -> None:
    relay, below = relay_and_below()
    assert value(below["spec"], "--parents") == "berlin-relay.default.svc:2379"
    assert not [a for a in arguments(relay["spec"]) if a.startswith("--parents")]
    for made in (relay, below):
        assert value(made["spec"], "--endpoints") == "shop-client.default.svc:2379"


def test_one_replica_of_a_site_writes_its_keys_and_all_are_told_which() -> None:
    fields = edge_spec(site={"name": "factory", "writer": "edge-1"})
    pods = [
        pool.replica(POOL, fields, spec(), IMAGE, node, NEWEST)["spec"]["template"] for node in ("edge-1", "edge-2")
    ]
    service = pool.writer_service(POOL, fields, SiteKeys(name="factory", writer="edge-1"), NEWEST)
    address = f"{service['metadata']['name']}.default.svc:2379"
    for pod in pods:
        assert value(pod["spec"], "--site") == "factory"
        assert value(pod["spec"], "--site-writer") == f"{pool.replica_on('berlin', 'edge-1')}-0={address}"
    leads_to = [service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() for pod in pods]
    assert leads_to == [True, False]
    assert service["spec"]["publishNotReadyAddresses"], "the site may be cut off"


def test_the_service_of_the_relays_leads_to_them_alone_by_their_own_addresses() -> None:
    made = pool.relay_service(POOL, edge_spec(relaysPerSite=1), NEWEST)
    assert made["metadata"]["name"] == "berlin-relay"
    assert (made["spec"]["clusterIP"], made["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert made["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    relay, below = relay_and_below(podLabels={"team": "shop"})
    assert made["spec"]["selector"].items() <= relay["metadata"]["labels"].items()
    assert not made["spec"]["selector"].items() <= below["metadata"]["labels"].items()
    for pod in (relay, below):  # applications find both
        assert pool.service(POOL, edge_spec())["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert pod["metadata"]["labels"]["team"] == "shop"


def test_a_replica_that_becomes_a_relay_is_outdated() -> None:
    """It runs with the same arguments as a replica of a pool without relays, but is not found without its label."""
    relay, below = relay_and_below()
    plain = pool.replica(POOL, edge_spec(), spec(), IMAGE, "edge-1", NEWEST)["spec"]["template"]
    assert relay["spec"] == plain["spec"]
    assert len({made["metadata"]["labels"][TEMPLATE_LABEL] for made in (relay, below, plain)}) == 3


def test_what_follows_relays_does_not_change_with_their_number() -> None:
    one, eight = (pool.replica(POOL, edge_spec(relaysPerSite=n), spec(), IMAGE, "e", NEWEST) for n in (1, 8))
    assert one == eight


@pytest.mark.parametrize(
    ("kubernetes", "wanted"), [((1, 30), "PreferClose"), ((1, 33), "PreferClose"), ((1, 34), "PreferSameNode")]
)
def test_clients_get_the_replica_of_their_node_where_kubernetes_can(kubernetes: tuple[int, int], wanted: str) -> None:
    assert pool.service(POOL, edge_spec(), kubernetes=kubernetes)["spec"]["trafficDistribution"] == wanted
    assert pool.service(POOL, edge_spec())["spec"]["trafficDistribution"] == "PreferClose"
