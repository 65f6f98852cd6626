"""The API server's own data in holdfast (`make e2e STORE=holdfast`): what Kubernetes asks of its datastore."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.kubectl import ENVIRONMENT, ROOT, apply, eventually, kubectl

pytestmark = pytest.mark.skipif(os.environ.get("STORE") != "holdfast", reason="the API server's data is in etcd")

COUNT = 1000
NAMESPACE = "datastore"


def ctl(*words: str) -> str:
    return subprocess.run(
        [str(ROOT / "e2e/datastore"), "ctl", *words], capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.fixture(scope="module", autouse=True)
def namespace() -> None:
    apply(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n")


def _maps(first: int, count: int, value: str) -> str:
    items = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"m{n:04d}", "namespace": NAMESPACE},
            "data": {"value": value},
        }
        for n in range(first, first + count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def test_a_thousand_objects_made_listed_in_pages_and_watched() -> None:
    words = ["kubectl", "-n", NAMESPACE, "get", "configmaps", "--watch-only", "-o", "name"]
    watching = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda at: apply(_maps(at, 100, "first")), range(0, COUNT, 100)))
        listed = kubectl("-n", NAMESPACE, "get", "configmaps", "--chunk-size=100", "-o", "name").split()
        assert len([name for name in listed if re.fullmatch(r"configmap/m\d{4}", name)]) == COUNT
        assert watching.stdout is not None
        seen: set[str] = set()
        while len(seen) < COUNT:
            line = watching.stdout.readline()
            assert line, f"the watch ended after {len(seen)}"
            if re.fullmatch(r"configmap/m\d{4}", line.strip()):
                seen.add(line.strip())
    finally:
        watching.kill()
        watching.wait()
    keys = ctl("get", f"/registry/configmaps/{NAMESPACE}/m", "--prefix", "--count-only", "-w", "fields")
    assert f'"Count" : {COUNT}' in keys


@pytest.mark.timeout(600)  # kubectl is slow at applying a thousand objects on a busy machine; the waits are measured
def test_consistent_lists_do_not_wait_while_others_write() -> None:
    """From its watch cache the API server answers a list only once the datastore reported progress to the revision that
    it read; without such reports every one of these takes 3 seconds."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps?limit=5"
    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(lambda at=at: apply(_maps(at, 100, "second"))) for at in range(0, COUNT, 100)]
        took = []
        while not all(w.done() for w in writing):
            began = time.monotonic()
            assert json.loads(kubectl("get", "--raw", path))["items"]
            took.append(time.monotonic() - began)
        for w in writing:
            w.result()
    print(f"{len(took)} consistent lists while {COUNT} objects were written, the slowest {max(took):.2f} s")
    assert len(took) >= 3
    metrics = [line for line in kubectl("get", "--raw", "/metrics").splitlines() if 'resource="configmaps"' in line]
    reads = [line for line in metrics if line.startswith("apiserver_watch_cache_consistent_read_total")]
    assert reads, "consistent reads are not served from the watch cache"
    assert all('success="true"' in line for line in reads), reads
    waits = [line for line in metrics if line.startswith("apiserver_watch_cache_read_wait_seconds_bucket")]
    below = {le: next(line for line in waits if f'le="{le}"' in line).split()[-1] for le in ("2", "+Inf")}
    assert below["2"] == below["+Inf"], "some waited for progress that did not come"


def test_the_api_server_compacts() -> None:
    def compacted() -> int:
        status = json.loads(ctl("endpoint", "hashkv", "-w", "json"))
        return min(int(member["HashKV"].get("compact_revision", 0)) for member in status)

    eventually("history is compacted on all members", lambda: compacted() > 1, seconds=180)
    hashes = {
        member["HashKV"]["hash"]
        for member in json.loads(ctl("endpoint", "hashkv", "--rev", str(compacted()), "-w", "json"))
    }
    assert len(hashes) == 1


def test_the_api_server_says_nothing_bad_of_its_datastore() -> None:
    pods = kubectl("-n", "kube-system", "get", "pods", "-l", "component=kube-apiserver", "-o", "name").split()
    log = kubectl("-n", "kube-system", "logs", pods[0], "--tail=-1")
    bad = [
        line
        for line in log.splitlines()
        if re.search(r"etcd|cacher|datastore|storage(?!\.k8s\.io)", line) and re.match(r"[EF]\d{4}", line)
    ]
    assert not bad, "\n".join(bad[:20])
    assert ctl("alarm", "list") == ""
