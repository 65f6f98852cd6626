"""The whole way, on a real cluster: from `kubectl apply` to a value read at the edge, and what may happen to it.

The tests go in order; each leaves the cluster as it found it.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from e2e.applications import Writer, application, said_on_node
from e2e.clusters import SECOND_IMAGE, SHOP
from e2e.kubectl import apply, condition, eventually, get, kubectl, on_node

KEY = "/stores/common/checkout/payment.yaml"
EDGE_LABEL = "holdfast.dev/tier=edge"

pytestmark = pytest.mark.timeout(900)


def edge_nodes() -> list[str]:
    return sorted(n["metadata"]["name"] for n in get("nodes", "-l", EDGE_LABEL)["items"])


def test_apply_to_a_value_at_the_edge() -> None:
    eventually("three voters are ready", lambda: SHOP.voters_ready(3), 300)
    eventually(
        "the edge pool is ready", lambda: condition(get("hfep", "shop-stores-berlin"), "Available") == "True", 240
    )
    config = eventually(
        "every replica has the configuration",
        lambda: (c := get("hfcfg", "checkout"))["status"]["summary"] == "2/2" and c,
    )
    print(kubectl("get", "hfc,hfep,hfcfg"))
    shown = SHOP.object()["status"]
    assert shown["votersSummary"] == "3/3"
    zones = {
        get("node", p["spec"]["nodeName"])["metadata"]["labels"]["topology.kubernetes.io/zone"]
        for p in get("pods", "-l", "holdfast.dev/component=voter")["items"]
    }
    assert zones == {"zone-a", "zone-b", "zone-c"}
    for node in edge_nodes():
        name = f"reader-{node}"
        application(name, "reader.py", ["shop-edge.default.svc:2379", KEY], node)
        found = eventually(
            f"a pod on {node} reads the value",
            lambda n=node, r=name: [line for line in said_on_node(n, r) if line.get("read")],  # type: ignore[misc]
        )
        assert "provider: acme" in found[-1]["read"]
        assert found[-1]["revision"] >= config["status"]["revision"]


def test_objects_say_how_they_are() -> None:
    described = kubectl("describe", "hfc", "shop")
    for words in ("LinearizableReadOK", "CanLoseOne", "ClusterFormed", "MemberPromoted"):
        assert words in described
    assert kubectl("get", "pdb", "shop-voter", "-o", "jsonpath={.spec.minAvailable}") == "2"


def test_bad_objects_are_refused() -> None:
    """One clear line, from the API server or as a condition; nothing is changed."""

    def refused(text: str) -> str:
        with pytest.raises(AssertionError) as error:
            apply(text)
        return str(error.value)

    head = "apiVersion: holdfast.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    bad = {
        "unknown field": ("HoldfastCluster", "bad", "{version: 0.2.0, nonsense: 1}"),
        "Unsupported value": ("HoldfastCluster", "bad", "{version: 0.2.0, voters: {replicas: 4}}"),
        "give version or image": ("HoldfastCluster", "bad", "{voters: {replicas: 3}}"),
        "must begin with a letter": ("HoldfastCluster", "1bad", "{version: 0.2.0}"),
        "no prefix may begin with another one": (
            "HoldfastEdgePool",
            "bad",
            "{clusterRef: {name: shop}, placement: {nodeSelector: {a: b}}, prefixes: [/a/, /a/b/]}",
        ),
        "spec.prefix": ("HoldfastConfig", "bad", "{clusterRef: {name: shop}, prefix: /no-slash, data: {a: b}}"),
    }
    for words, (kind, name, spec) in bad.items():
        assert words in refused(head.format(kind=kind, name=name, spec=spec))
    assert "cannot be changed" in refused(
        head.format(kind="HoldfastCluster", name="shop", spec="{version: 0.2.0, tls: {mode: Disabled}}")
    )
    apply(
        head.format(
            kind="HoldfastConfig",
            name="overlapping",
            spec="{clusterRef: {name: shop}, prefix: /stores/common/, data: {checkout/payment.yaml: hijacked}}",
        )
    )
    found = eventually(
        "the overlapping prefix is refused",
        lambda: condition(c := get("hfcfg", "overlapping"), "Accepted") == "False" and c,
    )
    assert "belongs to the older HoldfastConfig checkout" in json.dumps(found["status"])
    kubectl("delete", "hfcfg", "overlapping")


def test_the_leaders_pod_is_killed_while_a_writer_writes() -> None:
    writer = Writer("writer-kill")
    leader = SHOP.object()["status"]["leader"]
    node = get("pod", leader)["spec"]["nodeName"]
    on_node(node, "pkill", "-9", "-f", f"holdfast serve .*--name={leader}")  # no time to hand over
    kubectl("delete", "pod", leader, "--grace-period=0", "--force")
    eventually("another member leads", lambda: SHOP.object()["status"].get("leader") not in (None, leader))
    writer.writes_on()
    eventually("three voters are ready again", lambda: SHOP.voters_ready(3))
    gap = writer.longest_gap()
    acknowledged = writer.stop()
    print(f"   {len(acknowledged)} writes acknowledged, none lost; the writer's longest gap was {gap:.2f} s")


def test_a_voters_pod_and_volume_are_lost() -> None:
    writer = Writer("writer-volume")
    before = SHOP.members()
    victim = next(name for name in sorted(before) if name != SHOP.object()["status"]["leader"])
    kubectl("delete", "pvc", f"data-{victim}", "--wait=false")
    kubectl("delete", "pod", victim, "--grace-period=0", "--force")

    def replaced() -> bool:
        assert condition(SHOP.object(), "Available") == "True", "quorum must not be lost"
        now = SHOP.members()
        return now.get(victim, before[victim]) != before[victim] and SHOP.voters_ready(3)

    eventually(f"a new member takes the place of {victim}", replaced)
    after = SHOP.members()
    assert {n: i for n, i in after.items() if n != victim} == {n: i for n, i in before.items() if n != victim}
    gap = writer.longest_gap()
    acknowledged = writer.stop()
    print(f"   {len(acknowledged)} writes acknowledged, none lost; longest gap {gap:.2f} s")


def _config(values: dict[str, str]) -> None:
    data = json.dumps(values)
    apply(
        "apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfig\nmetadata: {name: checkout}\n"
        f"spec: {{clusterRef: {{name: shop}}, prefix: /stores/common/checkout/, data: {data}}}\n"
    )


def _cut(node: str, how: str) -> None:
    for tables in ("iptables", "ip6tables"):
        for chain, side in (("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o")):
            on_node(node, tables, "-w", how, chain, side, "eth0", "-j", "DROP")


def test_an_edge_node_is_cut_off() -> None:
    """Its pods go on reading, also after a restart of the application's container; healed, nothing is missed or told
    twice."""
    node = edge_nodes()[0]
    name = f"reader-{node}"
    other = f"reader-{edge_nodes()[1]}"

    def last_read() -> dict[str, Any]:
        return next(line for line in reversed(said_on_node(node, name)) if "read" in line or "error" in line)

    _config({"payment.yaml": "provider: before"})
    eventually("the value is at the edge", lambda: last_read().get("read") == "provider: before")
    _cut(node, "-I")
    try:
        for n in range(5):
            _config({"payment.yaml": f"provider: during {n}"})
            eventually(
                "the other edge node has it",
                lambda n=n: any(  # type: ignore[misc]
                    line.get("value") == f"provider: during {n}" for line in said_on_node(edge_nodes()[1], other)
                ),
            )
        reads = len(said_on_node(node, name))
        eventually("reads go on", lambda: len(said_on_node(node, name)) > reads + 3)
        assert last_read()["read"] == "provider: before"
        starts = sum(1 for line in said_on_node(node, name) if "started" in line)
        on_node(node, "pkill", "-9", "-f", "/app/reader.py")

        def started() -> bool:
            out = said_on_node(node, name)
            at = [i for i, line in enumerate(out) if "started" in line]
            return len(at) > starts and any(line.get("read") == "provider: before" for line in out[at[-1] :])

        eventually("the restarted application reads the last known value, without a network", started)
    finally:
        _cut(node, "-D")
    _config({"payment.yaml": "provider: after"})
    eventually("the healed node has the new value", lambda: last_read().get("read") == "provider: after")

    def events(at: str, reader: str) -> list[tuple[int, str]]:
        return [(e["revision"], e["value"]) for e in said_on_node(at, reader) if "event" in e]

    wanted = eventually(
        "both saw the end",
        lambda: (
            (a := events(edge_nodes()[1], other))[-1][1] == "provider: after"
            and (b := events(node, name))[-1][1] == "provider: after"
            and (a, b)
        ),
    )
    assert wanted[0] == wanted[1], "an event was missed or told twice on the node that was cut off"
    eventually("the node is ready", lambda: condition(get("node", node), "Ready") == "True")
    kubectl("apply", "-f", "manifests/samples/shop.yaml")


def test_three_five_three_voters() -> None:
    uids = {
        p["metadata"]["name"]: p["metadata"]["uid"] for p in get("pods", "-l", "holdfast.dev/component=voter")["items"]
    }
    writer = Writer("writer-scale")
    patch = '{"spec": {"voters": {"replicas": %d}}}'
    kubectl("patch", "hfc", "shop", "--type=merge", "-p", patch % 5)
    eventually("five voters are ready", lambda: SHOP.voters_ready(5), 300)
    assert kubectl("get", "pdb", "shop-voter", "-o", "jsonpath={.spec.minAvailable}") == "3"
    kubectl("patch", "hfc", "shop", "--type=merge", "-p", patch % 3)
    eventually("three voters are left", lambda: SHOP.voters_ready(3), 300)
    eventually(
        "the others' volumes are gone", lambda: len(get("pvc", "-l", "holdfast.dev/component=voter")["items"]) == 3
    )
    now = {
        p["metadata"]["name"]: p["metadata"]["uid"] for p in get("pods", "-l", "holdfast.dev/component=voter")["items"]
    }
    assert now == uids, "scaling must not replace a pod that stays"
    gap = writer.longest_gap()
    acknowledged = writer.stop()
    print(f"   {len(acknowledged)} writes acknowledged, none lost; longest gap {gap:.2f} s")


def test_rolling_upgrade_leader_last() -> None:
    writer = Writer("writer-roll")
    leader = SHOP.object()["status"]["leader"]
    members = SHOP.members()
    began = time.monotonic()
    kubectl("patch", "hfc", "shop", "--type=merge", "-p", f'{{"spec": {{"image": "{SECOND_IMAGE}"}}}}')

    def upgraded() -> bool:
        pods = get("pods", "-l", "holdfast.dev/component=voter")["items"]
        return {p["spec"]["containers"][0]["image"] for p in pods} == {SECOND_IMAGE} and SHOP.voters_ready(3)

    eventually("all voters run the second image", upgraded, 400)
    pods = get("pods", "-l", "holdfast.dev/component=voter")["items"]
    by_age = sorted(pods, key=lambda p: p["metadata"]["creationTimestamp"])
    assert by_age[-1]["metadata"]["name"] == leader, "the leader's pod must be the last one"
    assert SHOP.members() == members, "a restart is no change of membership"
    gap = writer.longest_gap()
    acknowledged = writer.stop()
    seconds = time.monotonic() - began
    print(f"   rolled in {seconds:.0f} s; {len(acknowledged)} writes, none lost; longest gap {gap:.2f} s")

    def pool_upgraded() -> bool:
        pods = get("pods", "-l", "holdfast.dev/component=replica")["items"]
        return {p["spec"]["containers"][0]["image"] for p in pods} == {SECOND_IMAGE}

    eventually("the edge pool follows", pool_upgraded, 240)
