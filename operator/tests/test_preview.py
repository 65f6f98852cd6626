"""`holdfast operator plan`: what it reads, what it prints, and that it changes nothing.

The API server here is a stand-in that answers over real HTTP; the real one is asked in the tests on Kubernetes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from holdfast_operator.kube import ApiError
from holdfast_operator.plan import actions
from holdfast_operator.preview.command import run
from holdfast_operator.preview.dry_run import DryRun, differences
from holdfast_operator.preview.forward import DATA, PROTOCOL, ForwardedMembers
from holdfast_operator.preview.preview import BadFile, preview, read
from holdfast_operator.words import sentence

CLUSTER = """
apiVersion: holdfast.dev/v1alpha1
kind: HoldfastCluster
metadata: {name: shop}
spec: {version: 0.2.0, voters: {replicas: 3}, tls: {mode: Disabled}}
"""
POOL = """
---
apiVersion: holdfast.dev/v1alpha1
kind: HoldfastEdgePool
metadata: {name: stores}
spec: {clusterRef: {name: shop}, placement: {nodeSelector: {tier: edge}}, prefixes: [/a/]}
"""
Object = dict[str, Any]


class Server:
    """Keeps objects by path. A write that is no dry run is noted in `changed`."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {"/version": {"major": "1", "minor": "34"}}
        self.changed: list[str] = []
        self.refuse = ""  # a path whose writes are forbidden
        self._uids = itertools.count(1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            found = self.objects.get(request.path)
            if found is not None:
                return web.json_response(found)
            if request.path.rpartition("/")[2] in _PLURALS:
                return web.json_response({"apiVersion": "v1", "items": []})
            return web.json_response({"reason": "NotFound", "message": "none"}, status=404)
        if request.query.get("dryRun") != "All":
            self.changed.append(f"{request.method} {request.path}")
        if self.refuse and request.path.startswith(self.refuse):
            return web.json_response({"reason": "Forbidden", "message": "you may not"}, status=403)
        body = json.loads(await request.text())
        # As the API server answers a dry run: without a resource version.
        body["metadata"] = {"uid": f"u{next(self._uids)}", "generation": 1, **body["metadata"]}
        return web.json_response(body)


_PLURALS = {
    "pods",
    "nodes",
    "secrets",
    "statefulsets",
    "persistentvolumeclaims",
    "holdfastedgepools",
    "holdfastconfigs",
}


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def api(server: Server) -> AsyncIterator[DryRun]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with listening(app) as base:
        kube = DryRun(base, tls=None, token_file=None)
        try:
            yield kube
        finally:
            await kube.close()


async def shown(kube: DryRun, path: Path) -> list[str]:
    lines: list[str] = []
    await preview(kube, read(path, "d"), "holdfast", lines.append)
    return lines


async def test_a_new_cluster_is_shown_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(CLUSTER + POOL)
    server = Server()
    async with api(server) as kube:
        lines = await shown(kube, path)
    assert server.changed == []
    assert "HoldfastCluster d/shop" in lines
    assert "  would create the StatefulSet shop-voter" in lines
    assert "HoldfastEdgePool d/stores" in lines
    assert any(line.startswith("  would say Ready False") for line in lines)
    assert lines[-1] == "nothing was changed"


async def test_a_change_of_a_live_cluster_is_shown_by_field(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(CLUSTER)
    server = Server()
    async with api(server) as kube:
        await shown(kube, path)
        made = kube._merged["HoldfastCluster", "d", "shop"]
    server.objects["/apis/holdfast.dev/v1alpha1/namespaces/d/holdfastclusters/shop"] = made
    service = {"clusterIP": "10.0.0.1", "ports": [{"name": "client", "port": 1}]}
    owner = {"controller": True, "kind": "HoldfastCluster", "name": "shop", "uid": made["metadata"]["uid"]}
    server.objects["/api/v1/namespaces/d/services/shop-client"] = {
        "kind": "Service",
        "metadata": {"name": "shop-client", "uid": "s", "ownerReferences": [owner]},
        "spec": service,
    }
    async with api(server) as kube:
        lines = await shown(kube, path)
    (change,) = [line for line in lines if "change the Service shop-client" in line]
    assert "spec." in change
    assert server.changed == []


async def test_what_the_api_server_refuses_is_said(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(CLUSTER)
    server = Server()
    server.refuse = "/apis/holdfast.dev"
    async with api(server) as kube:
        with pytest.raises(ApiError, match="you may not"):
            await shown(kube, path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "cannot be read"),
        ("- 1", "no Kubernetes object with a name"),
        ("kind: Pod\nmetadata: {name: x}", "has no HoldfastCluster"),
        ("apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastConfig\nmetadata: {name: x}", "has no HoldfastCluster"),
        ("apiVersion: holdfast.dev/v1alpha1\nkind: HoldfastCells\nmetadata: {name: x}", "has no HoldfastCluster"),
        ("", "has no HoldfastCluster"),
    ],
)
def test_a_file_without_our_objects_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(BadFile, match=why):
        read(path, "d")


async def test_errors_of_the_command_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    assert "cannot be read" in await run(path, "d", None, None, "holdfast")
    path.write_text(CLUSTER)
    assert "kubeconfig" in await run(path, "d", str(tmp_path / "none"), None, "holdfast")
    config = tmp_path / "config"
    config.write_text(
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], "
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}"
    )
    assert "cannot be reached" in await run(path, "d", str(config), None, "holdfast")
    assert "kubeconfig" in await run(path, "d", str(config), "other", "holdfast")


def test_differences_name_fields_and_hide_secrets() -> None:
    live = {"spec": {"a": 1, "l": [1, 2]}, "metadata": {"uid": "x", "labels": {"k": "v"}}}
    wanted = {"spec": {"a": 2, "l": [1, 3]}, "metadata": {"uid": "y"}}
    found = list(differences(live, wanted))
    assert found == ["metadata.labels: {'k': 'v'} → none", "spec.a: 1 → 2", "spec.l[1]: 2 → 3"]
    assert list(differences({"data": {"key": "old"}}, {"data": {"key": "new"}}, values=False)) == ["data.key"]


def test_every_action_has_words() -> None:
    made: list[actions.Action] = [
        actions.Wait("R", "m"),
        actions.MarkVolumes((actions.Mark("c", "u", 1, 2),)),
        actions.Record(1, 2),
        actions.Form(0, 1, 2),
        actions.RecordBootstrapped(),
        actions.Forget(1),
        actions.Open(0, 1),
        actions.AddLearner(1, 2, 3),
        actions.Promote(2, "shop-voter-1", 3),
        actions.Remove(2, "shop-voter-1", 3, "because"),
        actions.TransferLeader(0, 2, "because"),
        actions.EvictPod(0, "u", "because"),
        actions.DeletePod(0, "u", "because"),
        actions.DeleteVolume("c", "u", "because"),
    ]
    assert {type(action) for action in made} == set(actions.Action.__args__)
    assert all(sentence(action, "shop") for action in made)


async def test_members_are_asked_through_the_api_server() -> None:
    """As kubectl port-forward: a channel begins with the port, and the bytes of both sides come through whole."""

    async def forward(request: web.Request) -> web.WebSocketResponse:
        if request.headers["accept"] == "application/json":
            raise web.HTTPNotAcceptable  # as the API server
        socket = web.WebSocketResponse(protocols=(PROTOCOL,))
        await socket.prepare(request)
        for channel in (DATA, DATA + 1):
            await socket.send_bytes(bytes([channel]) + (2379).to_bytes(2, "little"))
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(bytes([DATA]) + message.data[1:].upper())
        return socket

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/d/pods/shop-voter-0/portforward", forward)
    async with listening(app) as base:
        kube = DryRun(base, tls=None, token_file=None)
        members = ForwardedMembers(kube, "shop", "d", False, lambda pod: kube.open_pod("d", pod))
        host, _, port = (await members.endpoint(0, "10.1.2.3")).rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for text in (b"a", b"b" * 200_000):
            writer.write(text)
            await writer.drain()
            assert await asyncio.wait_for(reader.readexactly(len(text)), 10) == text.upper()
        writer.close()
        missing, _, port = (await members.endpoint(1, "10.1.2.4")).rpartition(":")
        reader, writer = await asyncio.open_connection(missing, int(port))
        assert await asyncio.wait_for(reader.read(), 10) == b"", "there is no such pod: the connection ends"
        writer.close()
        await members.close()
        await kube.close()
