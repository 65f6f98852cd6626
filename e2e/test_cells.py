"""Cells on Kubernetes: three clusters in one namespace agree, move keys, send messages, and one of them goes away.

The tests go in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from e2e import audit
from e2e.clusters import API, Cluster, namespace
from e2e.kubectl import CALM, condition, eventually

pytestmark = pytest.mark.timeout(1800)

VOTERS = {"eu": 3, "us": 1, "witness": 1}
EU_US = [{"name": name, "cluster": name} for name in ("eu", "us")]
SEEN = 40.0  # seconds: two passes of the operator, and what a cell that is away costs


class Regions:
    """The HoldfastCells `regions`, and what a user does with it."""

    def __init__(self, name: str) -> None:
        self.clusters = {cluster: Cluster(name, cluster) for cluster in VOTERS}
        self.kubectl = self.clusters["eu"].kubectl
        self.get = self.clusters["eu"].get

    def manifest(self, name: str = "regions", **spec: Any) -> str:
        namespace = self.clusters["eu"].namespace
        elsewhere = [f"witness-client.{namespace}.svc:2379"]
        witness = {"name": "witness", "endpoints": elsewhere, "tls": {"secretName": "witness-client-tls"}}
        meta = {"name": name, "namespace": namespace}
        wanted = {"cells": [*EU_US, witness], "queues": [{"from": "eu", "to": "us"}], **spec}
        return json.dumps({"apiVersion": API, "kind": "HoldfastCells", "metadata": meta, "spec": wanted})

    def apply(self, **spec: Any) -> None:
        self.kubectl("apply", "-f", "-", stdin=self.manifest(**spec))

    def object(self) -> Any:
        return self.get("hfcells", "regions")

    def row(self) -> dict[str, str]:
        return self.clusters["eu"].row("hfcells", "regions")

    def cell(self, name: str) -> Any:
        return next(cell for cell in self.object()["status"]["cells"] if cell["name"] == name)

    def copies(self) -> list[tuple[Any, ...]]:
        """The prefixes that are copied, and the cells."""
        found = self.object()["status"].get("replication", [])
        return [(each["prefix"], each["from"], each["to"]) for each in found]

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            found = self.object()
            current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
            return current and condition(found, "Ready") == "True"

        eventually("the cells are Ready", is_ready, CALM)

    def cells(self, *words: str, stdin: str | None = None) -> str:
        """The command `holdfast cells`, in a pod of the Deployment, which knows where the cells are."""
        inside = ["exec", "-i", "deploy/regions-cells", "-c", "janitor", "--", "holdfast", "cells", *words]
        return self.kubectl(*inside, stdin=stdin)

    def value(self, cell: str, key: str) -> str:
        """Empty if the key is not there."""
        try:
            shown = self.clusters[cell].holdfast("get", key, "-o", "simple")
        except AssertionError as error:
            if f"{key} is not there" not in str(error):
                raise
            return ""
        return "\n".join(shown.splitlines()[1:])  # after the key


@pytest.fixture(scope="module")
def regions() -> Iterator[Regions]:
    with namespace("cells") as name:
        made = Regions(name)
        for each, voters in VOTERS.items():
            made.clusters[each].apply(voters)
        made.apply()
        for cluster in made.clusters.values():
            cluster.wait_ready()
        yield made


def test_cells_are_set_up_and_ready(regions: Regions) -> None:
    regions.wait_ready()
    row = regions.row()
    print(f"   {row}")
    assert (row["READY"], row["VERSION"], row["REACHABLE"], row["LAG"]) == ("True", "1", "3/3", "0")
    assert row["AVAILABLE"] == row["WORKING"] == "True"
    assert all(cell["counts"] for cell in regions.object()["status"]["cells"])
    shown = regions.cells("status")
    print(shown)
    assert "eu, us, witness (version 1)" in shown


def test_wrong_objects_are_refused_in_words(regions: Regions) -> None:
    pair = [{"name": "eu", "cluster": "eu"}, {"name": "us", "endpoints": ["us.example.com:2379"]}]
    wrong: dict[str, dict[str, Any]] = {
        "give each cell either cluster or endpoints": {"cells": [{"name": "eu"}], "queues": []},
        "tls belongs to endpoints": {"cells": [{"name": "eu", "cluster": "eu", "tls": {"secretName": "x"}}]},
        "Duplicate value": {"cells": [pair[0], pair[0]], "queues": []},
        "in queues, from and to": {"cells": pair, "queues": [{"from": "eu", "to": "eu"}]},
        "in replicate, from and to": {"cells": pair, "replicate": [{"prefix": "/a/", "from": "eu", "to": ["ap"]}]},
        "no prefix may have keys below /cells/": {"cells": pair, "replicate": [{"prefix": "/", "from": "eu"}]},
        "no prefix may begin with another one": {
            "cells": pair,
            "replicate": [{"prefix": "/a/", "from": "eu"}, {"prefix": "/a/b/", "from": "us"}],
        },
        "spec.cells[0].name": {"cells": [{"name": "EU/1", "cluster": "eu"}], "queues": []},
        "spec.cells": {"cells": [], "queues": []},
    }
    for words, spec in wrong.items():
        with pytest.raises(AssertionError) as refused:
            regions.kubectl("create", "--dry-run=server", "-f", "-", stdin=regions.manifest("wrong", **spec))
        assert words in str(refused.value)


def test_a_transaction_moves_a_key(regions: Regions) -> None:
    regions.clusters["eu"].holdfast("put", "/stock", "1")
    moved = "at eu\nif /stock = 1\ndelete /stock\nat us\nif /stock absent\nput /stock 1\n"
    assert "committed" in regions.cells("txn", stdin=moved)
    eventually("us has the key", lambda: regions.value("us", "/stock") == "1", SEEN)
    eventually("eu has it no more", lambda: not regions.value("eu", "/stock"), SEEN)


def test_a_message_goes_through_a_queue(regions: Regions) -> None:
    regions.cells("queue", "send", "eu", "us", stdin="put /orders/7 'two chairs'\n")
    eventually("the order has arrived", lambda: regions.value("us", "/orders/7") == "two chairs", SEEN)
    queue = {"from": "eu", "to": "us", "waiting": 0, "refused": 0}
    eventually("the status shows the queue", lambda: regions.object()["status"]["queues"] == [queue], SEEN)


def test_a_cell_is_down(regions: Regions) -> None:
    """Registers go on; the object says which cell is away, and that it is not Ready for that."""
    regions.clusters["us"].patch({"paused": True})  # or the operator would start it again
    regions.kubectl("scale", "statefulset", "us-voter", "--replicas=0")
    regions.kubectl("wait", "--for=delete", "pod/us-voter-0", "--timeout=60s")
    assert "eu" in regions.cells("register", "set", "primary", "eu", "--if-absent")
    regions.cells("queue", "send", "eu", "us", stdin="put /orders/8 'one table'\n")

    def away() -> Any:
        found = regions.object()
        ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
        return ready["reason"] == "CellAway" and ready

    told = eventually("the object says which cell is away", away, SEEN)
    print(f"   {told['message']}")
    assert told["status"] == "False"
    assert "us does not answer" in told["message"]
    assert "the others are a majority" in told["message"]
    assert condition(regions.object(), "Available") == "True"
    assert (regions.row()["REACHABLE"], regions.cell("us")["reachable"], regions.cell("eu")["counts"]) == (
        "2/3",
        False,
        True,
    )
    regions.clusters["us"].patch({"paused": False})
    regions.clusters["us"].wait_ready()
    regions.wait_ready()
    eventually("what waited has arrived", lambda: regions.value("us", "/orders/8") == "one table", SEEN)


def test_a_settled_object_is_not_written(regions: Regions) -> None:
    regions.wait_ready()
    version = regions.object()["metadata"]["resourceVersion"]
    eventually("three passes are over", _passes(4), CALM)
    assert regions.object()["metadata"]["resourceVersion"] == version


def _passes(count: int) -> Callable[[], bool]:
    """Whether so many passes began from now on, as the API server's audit log shows."""
    began = datetime.now(UTC)

    def made() -> bool:
        asked = [r for r in audit.requests() if r.at >= began and str(r).startswith("get holdfastcells.")]
        return len(asked) >= count

    return made


def test_a_prefix_is_replicated(regions: Regions) -> None:
    """First one way, then the other way."""
    regions.clusters["eu"].holdfast("put", "/global/motd", "hello")
    regions.apply(replicate=[{"prefix": "/global/", "from": "eu", "to": ["us"]}])
    regions.wait_ready()
    eventually("us has the key", lambda: regions.value("us", "/global/motd") == "hello", SEEN)
    eventually("the status has it", lambda: regions.copies() == [("/global/", "eu", "us")], SEEN)
    regions.apply(replicate=[{"prefix": "/global/", "from": "us", "to": ["eu"]}])
    eventually("the status has the other way", lambda: regions.copies() == [("/global/", "us", "eu")], SEEN)
    regions.clusters["us"].holdfast("put", "/global/motd", "hello from us")
    eventually("eu has the key", lambda: regions.value("eu", "/global/motd") == "hello from us", SEEN)
    regions.wait_ready()
    regions.apply()


def test_the_set_changes_and_data_outlives_the_object(regions: Regions) -> None:
    regions.apply(cells=EU_US)
    eventually("the witness has left", lambda: regions.row()["REACHABLE"] == "2/2", CALM)
    regions.wait_ready()
    assert regions.row()["VERSION"] == "3"
    assert "witness" not in json.dumps(regions.get("deployment", "regions-cells")["spec"])
    regions.kubectl("delete", "hfcells", "regions")
    eventually(
        "the Deployment is gone",
        lambda: not regions.kubectl("get", "deployment", "regions-cells", "--ignore-not-found", "-o", "name"),
        60,
    )
    assert regions.value("us", "/orders/7") == "two chairs"
    regions.apply(cells=EU_US)
    regions.wait_ready()
    assert regions.row()["VERSION"] == "3", "it takes the set over as it is"
    assert regions.cells("register", "get", "primary").strip() == "eu"
