"""The examples, run as they are, against a real server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from holdfast import client
from holdfast_lab.processes import LocalCluster, free_ports

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def hf(server: LocalCluster) -> Iterator[client.BlockingClient]:
    with client.connect_blocking(server.endpoints) as made:
        made.delete("/app/", prefix=True)
        yield made


@pytest.fixture
def environment(server: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HOLDFAST_ENDPOINTS", server.endpoints[0])
    monkeypatch.setenv("LAST_GOOD", str(tmp_path / "kept"))
    return dict(os.environ)


def until(found: Callable[[], Any]) -> Any:
    """What it gives, once that is not None."""
    end = time.monotonic() + 60
    while (value := found()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return value


def fetched(url: str, data: bytes | None = None) -> str | None:
    try:
        with urllib.request.urlopen(url, data=data, timeout=10) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.URLError:
        return None


async def test_asgi(hf: client.BlockingClient, environment: dict[str, str]) -> None:
    spec = importlib.util.spec_from_file_location("asgi_live", EXAMPLES / "asgi_live.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["asgi_live"] = module
    spec.loader.exec_module(module)
    await asyncio.to_thread(hf.put, "/app/settings", '{"greeting": "hello"}')
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    state: dict[str, Any] = {}
    running = asyncio.ensure_future(module.app({"type": "lifespan", "state": state}, asked.get, told.put))
    await asked.put({"type": "lifespan.startup"})
    assert (await told.get())["type"] == "lifespan.startup.complete"

    async def get() -> dict[str, Any]:
        await module.app({"type": "http", "state": state}, asked.get, told.put)
        assert (await told.get())["status"] == 200
        found: dict[str, Any] = json.loads((await told.get())["body"])
        return found

    found = await get()
    assert (found["greeting"], found["limit"], found["error"]) == ("hello", 10, "")
    await asyncio.to_thread(hf.put, "/app/settings", '{"greeting": "new", "limit": 3}')
    while (await get())["greeting"] != "new":
        await asyncio.sleep(0.01)
    await asyncio.to_thread(hf.put, "/app/settings", '{"greeting": "newer", "limit": 0}')
    while not (await get())["error"]:
        await asyncio.sleep(0.01)
    assert (await get())["greeting"] == "new", "what is not valid changes nothing"
    await asked.put({"type": "lifespan.shutdown"})
    assert (await told.get())["type"] == "lifespan.shutdown.complete"
    await running
    await asyncio.to_thread(hf.delete, "/app/settings")
    os.environ["LAST_GOOD"] += ".none"
    await asked.put({"type": "lifespan.startup"})
    await module.app({"type": "lifespan", "state": {}}, asked.get, told.put)
    assert "does not exist" in (await told.get())["message"]


DJANGO = """
import json, os, sys
import django
django.setup()
from django.conf import settings
pid = os.fork()  # as gunicorn --preload makes its workers
found = [settings.SECRET_KEY, settings.DEBUG, settings.ALLOWED_HOSTS, settings.DATABASES["default"]["HOST"]]
if pid == 0:
    from django.db import connection
    print(json.dumps([*found, connection.vendor]), flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_django(hf: client.BlockingClient, environment: dict[str, str]) -> None:
    hf.put("/app/secret_key", "from the store")
    hf.put("/app/allowed_hosts", '["shop.example"]')
    hf.put("/app/databases/default/host", "db")
    more = {"DJANGO_SETTINGS_MODULE": "django_settings", "PYTHONPATH": str(EXAMPLES), "DEBUG": "true"}
    done = subprocess.run(
        [sys.executable, "-c", DJANGO], env={**environment, **more}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["from the store", True, ["shop.example"], "db", "sqlite"]


def test_metrics(hf: client.BlockingClient, environment: dict[str, str]) -> None:
    hf.put("/app/limit", "5")
    (port,) = free_ports(1)
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "metrics.py"],
        env={**environment, "METRICS_PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None

            def limit(wanted: str) -> str | None:
                found = fetched(f"http://127.0.0.1:{port}/metrics") or ""
                return found if f"app_limit {wanted}" in found else None

            text = until(lambda: limit("5.0"))
            assert 'holdfast_cache_age_seconds{kind="config",prefix="/app/limit"}' in text
            assert f'holdfast_client_calls_total{{address="{environment["HOLDFAST_ENDPOINTS"]}"}}' in text
            hf.put("/app/limit", "6")
            assert program.stdout.readline() == "the limit is 6 now\n"
            until(lambda: limit("6.0"))
        finally:
            program.kill()


def test_sidecar(hf: client.BlockingClient, environment: dict[str, str], tmp_path: Path) -> None:
    """The command of the manifest, with places of this machine."""
    pod = yaml.safe_load((EXAMPLES / "sidecar.yaml").read_text())
    (sidecar,) = pod["spec"]["initContainers"]
    (app,) = pod["spec"]["containers"]
    assert sidecar["restartPolicy"] == "Always", "a sidecar, and not an init container that has to end"
    mounts = {mount["mountPath"]: mount["name"] for mount in sidecar["volumeMounts"]}
    assert mounts.keys() >= {"/config", "/last-good", "/tls"}
    assert {m["name"] for m in app["volumeMounts"]} <= {volume["name"] for volume in pod["spec"]["volumes"]}
    (port,) = free_ports(1)
    words = [
        word.replace("/config", str(tmp_path / "config"))
        .replace("/last-good/", f"{tmp_path}/last-good/")
        .replace(":8080/", f":{port}/")
        for word in sidecar["command"]
    ]
    assert words[0] == "holdfast"
    probe = sidecar["startupProbe"]["exec"]["command"][-1].replace("/config", str(tmp_path / "config"))
    hf.put("/app/a", "1")
    with subprocess.Popen([sys.executable, "-m", *words], env=environment, stderr=subprocess.DEVNULL) as writer:
        try:
            until(lambda: Path(probe).exists() or None)
            more = {"CONFIG": str(tmp_path / "config"), "PORT": str(port)}
            with subprocess.Popen(
                [sys.executable, EXAMPLES / "sidecar_app.py"], env={**environment, **more}, stderr=subprocess.DEVNULL
            ) as program:
                try:
                    first = until(lambda: fetched(f"http://127.0.0.1:{port}/"))
                    assert json.loads(first) == {"a": "1"}
                    hf.txn().then(hf.op.put("/app/a", "2"), hf.op.put("/app/b/c", "3")).commit()
                    wanted = {"a": "2", "b/c": "3"}
                    until(lambda: json.loads(fetched(f"http://127.0.0.1:{port}/") or "{}") == wanted or None)
                finally:
                    program.kill()
        finally:
            writer.kill()


def test_a_job_is_done_once_in_each_period_and_taken_over(
    hf: client.BlockingClient, environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        words = [sys.executable, str(EXAMPLES / "cron.py")]
        hosts = {
            name: subprocess.Popen([*words, name, "1"], env=environment, stdout=out) for name in ("host-1", "host-2")
        }
        try:
            first = until(lambda: next((line for line in log.read_text().splitlines() if "report" in line), None))
            leader = first.split(":")[0]
            hosts[leader].kill()
            other = next(name for name in hosts if name != leader)
            until(lambda: f"{other}: report" in log.read_text() or None)
        finally:
            for host in hosts.values():
                host.kill()
                host.wait()
    periods = [line.split()[-1] for line in log.read_text().splitlines() if "report" in line]
    assert len(periods) == len(set(periods)), "a period was done twice"


def test_a_work_queue(hf: client.BlockingClient, environment: dict[str, str]) -> None:
    words = [sys.executable, str(EXAMPLES / "work_queue.py")]
    workers = [subprocess.Popen([*words, "work"], env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    try:
        subprocess.run([*words, "put", "one", "two", "three"], env=environment, check=True, timeout=60)
        until(lambda: len(hf.range("/work/done/", prefix=True).kvs) == 3 or None)
        done = {kv.key.decode(): kv.value for kv in hf.range("/work/done/", prefix=True).kvs}
        assert done == {"/work/done/one": b"ONE", "/work/done/two": b"TWO", "/work/done/three": b"THREE"}
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
