"""A pool with a relay, and what is seen at its site, in the cloud and by the members."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from e2e.applications import application, said_on_node
from e2e.clusters import REPLICAS, Cluster
from e2e.kubectl import condition, eventually, lines, on_node
from e2e.nodes import nodes

POOL, WRITER, SITE = "site", "writer-site", "factory"
LOCAL = f"/local/{SITE}/"
CONFIG, WRITES = "/config/", f"/e2e/{WRITER}/"
KEY = f"{CONFIG}app/payment.yaml"
TARGET = 20  # seconds: how old the data may be
Row = tuple[str, str, int, int, int]


class Event(NamedTuple):
    revision: int
    type: str
    key: str


@dataclass(frozen=True)
class Load:
    """What the members have done for others since they were started."""

    follows: int  # streams of replicas that began
    following: int  # replicas that follow now
    files: int  # open files: what is more or less of them is connections
    sent: int  # bytes, to clients and replicas
    received: int

    def __sub__(self, before: Load) -> Load:
        return Load(*(getattr(self, field.name) - getattr(before, field.name) for field in fields(self)))


class Site(Cluster):
    """The cluster with its pool."""

    def pool_with(self, prefixes: list[str], relays: int = 1) -> None:
        made = json.loads(self.pool(POOL))
        made["spec"] |= {"prefixes": prefixes, "relaysPerSite": relays, "stalenessTargetSeconds": TARGET}
        made["spec"]["site"] = {"name": SITE, "writer": self.writes}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(made))

    @property
    def writes(self) -> str:
        """The node whose replica writes the keys of the site."""
        return nodes("edge")[0]

    def configure(self, data: dict[str, str]) -> None:
        self.kubectl("apply", "-f", "-", stdin=self.config(data))

    def revision(self) -> int:
        return int(json.loads(self.holdfast("get", KEY, "-o", "json"))["revision"])

    # ---- who follows whom ------------------------------------------------------------------------------------

    def relay_and_child(self) -> tuple[str, str] | None:
        """The replica that follows a member, and the one that follows it, if it is so."""
        shown = json.loads(self.holdfast("edge", "status", "-o", "json"))
        name_of = {entry["id"]: entry["name"] for entry in shown if entry["kind"] in ("member", "replica")}
        members = {entry["name"] for entry in shown if entry["kind"] == "member"}
        above = {
            e["name"]: name_of.get(e["upstream"]) for e in shown if e["kind"] == "replica" and e["state"] == "online"
        }
        relays = [name for name, upstream in above.items() if upstream in members]
        children = [name for name, upstream in above.items() if upstream in relays]
        return (relays[0], children[0]) if len(relays) == len(children) == 1 and len(above) == 2 else None

    def all_well(self) -> bool:
        """Whether the pool's status says so."""
        return self._says([2, 2, 0, 2], "True") and self._condition("Ready") == self._condition("Relays") == "True"

    def all_offline(self) -> bool:
        return self._says([2, 0, 2, 0], "False")

    def _says(self, counts: list[int], fresh: str) -> bool:
        status = self.get("hfep", POOL)["status"]
        told = [status.get(name) for name in ("replicas", "online", "offline", "synced")]
        fresh_now = self._condition("Fresh")
        assert (told, fresh_now) == (counts, fresh), f"{told}, fresh {fresh_now}"
        return True

    def _condition(self, type_: str) -> str:
        return condition(self.get("hfep", POOL), type_)

    # ---- what the replicas have ------------------------------------------------------------------------------

    def rows(self, prefix: str, replica: str = "") -> list[Row]:
        """All keys of the prefix, with values and revisions, as the cluster has them, or this replica."""
        words = ("get", prefix, "--prefix", "-o", "json", "--timeout", "60")
        if not replica:
            found = self.holdfast(*words)
        else:
            inside = ["exec", replica, "-c", "holdfast", "--", "holdfast", *words, "--serializable"]
            found = self.kubectl(*inside, "--endpoints", "localhost:2379", "--tls-dir", "/etc/holdfast/tls")
        return [
            (
                base64.b64decode(kv["key"]).decode(),
                kv["value"],
                kv["create_revision"],
                kv["mod_revision"],
                kv["version"],
            )
            for kv in json.loads(found)["kvs"]
        ]

    def same_as_cluster(self, prefixes: list[str]) -> bool:
        wanted = [self.rows(prefix) for prefix in prefixes]
        replicas = list(self.pod_uids(REPLICAS))
        return len(replicas) == 2 and all([self.rows(p, replica) for p in prefixes] == wanted for replica in replicas)

    def rolled(self, prefixes: list[str]) -> bool:
        """Whether all replicas are started with these prefixes."""
        wanted = {f"--prefix={prefix}" for prefix in prefixes}
        pods = self.pods(REPLICAS)
        return len(pods) == 2 and all(
            {word for word in pod["spec"]["containers"][0]["args"] if word.startswith("--prefix=")} == wanted
            and condition(pod, "Ready") == "True"
            for pod in pods
        )

    def pool_settled(self) -> bool:
        """Whether the operator has done what the newest spec says."""
        pool = self.get("hfep", POOL)
        current = pool["status"].get("observedGeneration") == pool["metadata"]["generation"]
        return current and condition(pool, "Ready") == "True"

    def relays(self) -> list[str]:
        """The pods that others may follow."""
        return sorted(pod["metadata"]["name"] for pod in self.pods("holdfast.dev/relay=true"))

    def oldest_replica(self) -> str:
        return str(min(self.pods(REPLICAS), key=lambda p: p["metadata"]["creationTimestamp"])["metadata"]["name"])

    def lost(self, replica: str) -> set[str]:
        """The values that the replica has kept which a restored cluster lacks."""
        words = ("sh", "-c", "cat /var/lib/holdfast/data/lost/*.jsonl")
        kept = lines(self.kubectl("exec", replica, "-c", "holdfast", "--", *words))
        return {base64.b64decode(change["value"]).decode() for change in kept if "value" in change}

    # ---- what it costs ---------------------------------------------------------------------------------------

    def load(self) -> Load:
        """Of all voters together."""
        pages = [
            self.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{voter}:2381/proxy/metrics")
            for voter in self.pod_uids()
        ]

        def total(metric: str) -> int:
            return sum(int(float(n)) for page in pages for n in re.findall(rf"^{metric} (\S+)$", page, re.MULTILINE))

        return Load(
            total(r'grpc_server_started_total\{[^}]*grpc_method="Follow"[^}]*\}'),
            total("holdfast_replicas_following"),
            total("process_open_fds"),
            total("etcd_network_client_grpc_sent_bytes_total"),
            total("etcd_network_client_grpc_received_bytes_total"),
        )


class LocalWriter:
    """A pod that writes keys of the site at the replica of its own node."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.name = "writer-of-the-site"
        endpoint = f"{site.name}-edge.{site.namespace}.svc:2379"
        application(self.name, "local_writer.py", [endpoint, SITE], site.writes, site)
        eventually(f"{self.name} writes", self.acknowledged)

    def acknowledged(self) -> list[str]:
        said = said_on_node(self.site.writes, self.name, self.site.namespace)
        return [line["acknowledged"] for line in said if "acknowledged" in line]

    def writes_on(self) -> None:
        before = len(self.acknowledged())
        eventually(f"{self.name} goes on", lambda: len(self.acknowledged()) > before + 5)

    def stop(self) -> None:
        """End it, and wait until all it wrote is at each replica, and reported to the cluster."""
        acknowledged = {f"{LOCAL}{key.removeprefix('/')}" for key in self.acknowledged()}
        self.site.kubectl("delete", "pod", self.name)
        writer = next(pod for pod in self.site.pods(REPLICAS) if pod["spec"]["nodeName"] == self.site.writes)
        reported = f"/reported/{writer['metadata']['name']}"

        def everywhere() -> bool:
            at_replicas = [{row[0] for row in self.site.rows(LOCAL, name)} for name in self.site.pod_uids(REPLICAS)]
            in_cluster = {row[0].removeprefix(reported) for row in self.site.rows(f"{reported}{LOCAL}")}
            return len(at_replicas) == 2 and all(found >= acknowledged for found in (*at_replicas, in_cluster))

        eventually(f"all {len(acknowledged)} keys of the site are at its replicas, and reported", everywhere)


class Observer:
    """A pod that reads KEY over and over, and watches prefixes from a revision on, through a Service."""

    def __init__(self, site: Site, name: str, node: str, service: str, start: int, prefixes: list[str]) -> None:
        self.site = site
        self.name = name
        self.node = node
        endpoint = f"{service}.{site.namespace}.svc:2379"
        application(name, "observer.py", [endpoint, KEY, str(start), *prefixes], node, site)
        eventually(f"{name} reads", self.reads)

    def said(self) -> list[dict[str, Any]]:
        return said_on_node(self.node, self.name, self.site.namespace)

    def events(self, prefix: str) -> list[Event]:
        """In the order in which they were told."""
        told = [Event(line["revision"], line["event"], line["key"]) for line in self.said() if "event" in line]
        return [event for event in told if event.key.startswith(prefix)]

    def reads(self) -> list[dict[str, Any]]:
        """Each with `at`, Unix seconds: the first ones, those after reads that failed, and those with another value."""
        return [line for line in self.said() if "read" in line]

    def longest_gap(self, since: float) -> float:
        """The longest time in which no read worked, in seconds."""
        gaps, failed = [0.0], 0.0
        for line in self.said():
            if "failed" in line:
                failed = line["at"]
            elif "read" in line and failed >= since:
                gaps.append(line["at"] - failed)
                failed = 0.0
        return max(gaps)

    def stop(self) -> None:
        self.site.kubectl("delete", "pod", self.name)


def restart(site: Site, observer: Observer) -> None:
    """End the replica's process on the node of the observer. Its container is started again, and serves what it has."""
    process = f"[h]oldfast edge .*--pool={POOL} .*{site.namespace}.svc"
    before, ended = _pids(observer.node, process), time.time()
    on_node(observer.node, "pkill", "-9", "-f", process)
    pids = eventually("its container runs again", lambda: _pids(observer.node, process) - before)
    began = _began(observer.node, min(pids))
    read = eventually("and is read from", lambda: [r for r in observer.reads() if r["at"] > max(began, ended)])[0]
    print(
        f"   the replica that {observer.name} reads: started {began - ended:.2f} s after its end, first read "
        f"{read['at'] - began:.2f} s after its start"
    )
    assert read["read"] == "provider: before"


def _pids(node: str, process: str) -> set[int]:
    found = on_node(node, "sh", "-c", f"pgrep -f '{process}' || true").split()
    return {int(pid) for pid in found if int(pid) > 1}


def _began(node: str, pid: int) -> float:
    """When the process began, in Unix seconds. The kernel counts hundredths of a second since the machine booted."""
    ticks = on_node(node, "cat", f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(ticks) / 100
