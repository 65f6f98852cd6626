"""A HoldfastCluster in a namespace: what a user does with it, and whether what Kubernetes shows of it is true."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from holdfast import __version__

from e2e.kubectl import CALM, apply, condition, eventually, kubectl
from e2e.nodes import nodes

IMAGE = f"holdfast:{__version__}"
SECOND_IMAGE = f"{IMAGE}-next"
NOTICED = 10.0  # seconds: how old what is shown may be; members that do not answer are waited for
PATIENCE = 420.0  # seconds: a busy machine takes long; what has to be fast is measured by its test
API = "holdfast.dev/v1alpha1"
VOTERS = "holdfast.dev/component=voter"
REPLICAS = "holdfast.dev/component=replica"


class Cluster:
    """A cluster, its pods and its volumes."""

    def __init__(self, namespace: str, name: str = "shop") -> None:
        self.namespace = namespace
        self.name = name

    # ---- what a user does ------------------------------------------------------------------------------------

    def kubectl(self, *words: str, stdin: str | None = None, seconds: float = 120, check: bool = True) -> str:
        return kubectl("-n", self.namespace, *words, stdin=stdin, seconds=seconds, check=check)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, voters: int = 3, **spec: Any) -> None:
        self.kubectl("apply", "-f", "-", stdin=self.manifest(voters, **spec))

    def manifest(self, voters: int = 3, *, resources: Any = None, image: str = "", version: str = "") -> str:
        """The cluster on the nodes of the cloud, as JSON."""
        wanted: dict[str, Any] = {
            "replicas": voters,
            "storage": {"size": "1Gi"},
            "placement": {"nodeSelector": {"holdfast.dev/tier": "cloud"}},
        }
        if resources is not None:
            wanted["resources"] = resources
        runs = {"image": image} if image else {"version": version or __version__}
        return self._object("HoldfastCluster", self.name, {**runs, "voters": wanted})

    def pool(self, name: str = "edge") -> str:
        """A pool on the nodes at the edge, as JSON."""
        placement = {"nodeSelector": {"holdfast.dev/tier": "edge"}}
        spec = {"clusterRef": {"name": self.name}, "placement": placement, "prefixes": ["/config/"]}
        return self._object("HoldfastEdgePool", name, spec)

    def config(self, data: dict[str, str], name: str = "app") -> str:
        """A configuration, as JSON."""
        spec = {"clusterRef": {"name": self.name}, "prefix": "/config/app/", "data": data}
        return self._object("HoldfastConfig", name, spec)

    def _object(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        meta = {"name": name, "namespace": self.namespace}
        return json.dumps({"apiVersion": API, "kind": kind, "metadata": meta, "spec": spec})

    def create(self, obj: Any) -> None:
        self.kubectl("create", "-f", "-", stdin=json.dumps(obj))

    def patch(self, spec: dict[str, Any]) -> None:
        self.kubectl("patch", "hfc", self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def annotate(self, key: str, value: str) -> None:
        self.kubectl("annotate", "hfc", self.name, f"{key}={value}", "--overwrite")

    def holdfast(self, *words: str, ordinal: int = 0, endpoint: str = "") -> str:
        """The command `holdfast`, in a voter's pod; `endpoint`: by default that of the voters' Service."""
        at = endpoint or f"{self.name}-client.{self.namespace}.svc:2379"
        inside = ["exec", f"{self.name}-voter-{ordinal}", "-c", "holdfast", "--", "holdfast", *words]
        return self.kubectl(*inside, "--endpoints", at, "--tls-dir", "/etc/holdfast/tls")

    # ---- what there is ---------------------------------------------------------------------------------------

    def object(self) -> Any:
        return self.get("hfc", self.name)

    def pods(self, labels: str = VOTERS) -> list[Any]:
        found: list[Any] = self.get("pods", "-l", f"holdfast.dev/cluster={self.name},{labels}")["items"]
        return found

    def pod_uids(self, labels: str = VOTERS) -> dict[str, str]:
        return _uids(self.pods(labels))

    def claim_uids(self, labels: str = VOTERS) -> dict[str, str]:
        return _uids(self.get("pvc", "-l", f"holdfast.dev/cluster={self.name},{labels}")["items"])

    def members(self) -> dict[str, str]:
        """The ids of the members by name, as the status shows them."""
        return {m["name"]: m["id"] for m in self.object()["status"]["members"]}

    def voters_ready(self, count: int) -> bool:
        found = self.object()
        members = found["status"]["members"]
        ready = [m for m in members if m["role"] == "voter" and m["ready"]]
        settled = (
            condition(found, "Progressing") == "False"
            and found["status"]["observedGeneration"] == found["metadata"]["generation"]
        )
        return len(ready) == len(members) == count and settled

    def keys(self, ordinal: int, prefix: str) -> set[str]:
        """What a voter has, asked from within its pod."""
        host = f"{self.name}-voter-{ordinal}.{self.name}-peers.{self.namespace}.svc:2379"
        words = ("get", prefix, "--prefix", "--keys-only", "-o", "simple")
        return set(self.holdfast(*words, ordinal=ordinal, endpoint=host).split())

    # ---- whether what is shown is true -----------------------------------------------------------------------

    def row(self, kind: str = "hfc", name: str = "") -> dict[str, str]:
        """What `kubectl get` shows of an object, by column."""
        head, line = self.kubectl("get", kind, name or self.name, "-o", "wide").splitlines()[:2]
        starts = [found.start() for found in re.finditer(r"\S+", head)]
        ends = [*starts[1:], None]
        return {head[a:b].strip(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)}

    def said_ready(self, kind: str = "hfc", name: str = "") -> bool:
        """Whether `kubectl wait` takes the object for ready now."""
        words = ("wait", "--for=condition=Ready", f"{kind}/{name or self.name}", "--timeout=1s")
        return "condition met" in self.kubectl(*words, check=False)

    def wait_ready(self, seconds: float = PATIENCE) -> None:
        self._wait("hfc", self.name, self.check_ready, seconds)

    def pool_ready(self, name: str = "edge", seconds: float = PATIENCE) -> None:
        self._wait("hfep", name, lambda: self.check_pool(name), seconds)

    def config_ready(self, name: str = "app", seconds: float = PATIENCE) -> None:
        self._wait("hfcfg", name, lambda: self.check_config(name), seconds)

    def _wait(self, kind: str, name: str, check: Callable[[], None], seconds: float) -> None:
        """Wait as a user does, and check that it is true. What is shown may be older than the newest event, but not by
        more than NOTICED seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            words = ("wait", "--for=condition=Ready", f"{kind}/{name}", f"--timeout={left:.0f}s")
            told = self.kubectl(*words, seconds=left + 30, check=False)
            if "condition met" in told and self._is_so(kind, name, check):
                return
        raise AssertionError(f"{kind} {self.namespace}/{name} is not ready within {seconds:g} s{self.story()}")

    def _is_so(self, kind: str, name: str, check: Callable[[], None]) -> bool:
        """Whether an object that says Ready is. Raises AssertionError if it is not and goes on saying so."""
        end = time.monotonic() + NOTICED
        while True:
            try:
                check()
            except AssertionError:
                if not self.said_ready(kind, name):
                    return False
                if time.monotonic() > end:
                    raise
            else:
                return True

    def check_ready(self) -> None:
        """An object that says Ready has all its voters, each with a ready pod of the wanted image, and it serves."""
        found, pods, row = self.object(), self.pods(), self.row()
        wanted = found["spec"]["voters"]["replicas"]
        names = {f"{self.name}-voter-{n}" for n in range(wanted)}
        assert {p["metadata"]["name"] for p in pods} == names, self.story()
        for pod in pods:
            assert condition(pod, "Ready") == "True", self.story()
            assert "deletionTimestamp" not in pod["metadata"], self.story()
            assert pod["spec"]["containers"][0]["image"] == found["status"]["rollout"]["image"], self.story()
        assert (row["READY"], row["VOTERS"], row["AVAILABLE"]) == ("True", f"{wanted}/{wanted}", "True"), row
        assert row["LEADER"] in names, row
        assert (condition(found, "Reconciling"), condition(found, "Stalled")) == ("False", "False"), self.story()
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
        self.check_serves()

    def check_serves(self) -> None:
        """A write that comes by the voters' Service is acknowledged."""
        assert "OK" in self.holdfast("put", "/e2e/serves", "yes", "-o", "simple")

    def wait_told(self, *words: str, seconds: float = 120) -> str:
        """Wait until the object says that it is not ready and why: in words of which one is among these."""

        def told() -> str:
            found = self.object()
            message: str = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "Ready")
            current = found["status"].get("observedGeneration") == found["metadata"]["generation"]
            fits = current and condition(found, "Ready") != "True" and any(word in message for word in words)
            return message if fits else ""

        message: str = eventually(f"{self.namespace}/{self.name} says {' or '.join(words)}", told, seconds)
        assert not self.said_ready()
        row = self.row()
        assert row["READY"] != "True", row
        assert any(word in row["MESSAGE"] for word in words), row
        return message

    def check_pool(self, name: str) -> None:
        """A pool that says Ready has a ready replica on each of its nodes."""
        pods, row = self.pods(REPLICAS), self.row("hfep", name)
        assert all(condition(pod, "Ready") == "True" for pod in pods), self.story()
        assert (row["READY"], row["REPLICAS"]) == ("True", f"{len(pods)}/{len(pods)}"), row
        assert sorted(pod["spec"]["nodeName"] for pod in pods) == nodes("edge")

    def check_config(self, name: str) -> None:
        """A configuration that says Ready is in the cluster."""
        found = self.get("hfcfg", name)
        assert self.row("hfcfg", name)["READY"] == "True"
        for key, value in found["spec"]["data"].items():
            assert value in self.holdfast("get", found["spec"]["prefix"] + key), f"{key} is not {value}"

    def story(self) -> str:
        """What a user would look at if something is wrong."""
        shown = self.kubectl("get", "hfc,hfep,hfcfg,pods,pvc", "-o", "wide", check=False)
        told = self.object().get("status") if self.kubectl("get", "hfc", "-o", "name", check=False) else None
        log = kubectl("-n", "holdfast-system", "logs", "deploy/holdfast-operator", "--tail=25", check=False)
        return f"\n{shown}\n{json.dumps(told, indent=1)}\n{log}"


def _uids(objects: list[Any]) -> dict[str, str]:
    return {o["metadata"]["name"]: o["metadata"]["uid"] for o in objects}


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A namespace with the strictest pod security; it is removed with all that is in it."""
    labels = "{pod-security.kubernetes.io/enforce: restricted}"
    if kubectl("get", "namespace", name, "--ignore-not-found", "-o", "name"):
        kubectl("delete", "namespace", name, seconds=CALM)
    apply(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
    try:
        yield name
    finally:
        try:
            kubectl("delete", "namespace", name, "--wait=false")
        except (AssertionError, subprocess.TimeoutExpired) as error:
            print(f"   the namespace {name} stays: {error}")


SHOP = Cluster("default")
