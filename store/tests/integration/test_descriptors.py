"""A member whose ports are flooded with connections keeps the descriptors that it needs, and answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from pathlib import Path

import pytest
from holdfast import client
from holdfast.process import MAX_PROBES, OWN_FILES
from holdfast_lab.processes import LocalCluster, free_ports

from ..certificates import Authority

pytestmark = pytest.mark.integration

FILES = 1100
FLOOD = 1500


async def test_a_flood_of_the_port_for_metrics_takes_few_descriptors(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    (port,) = free_ports(1)
    local = LocalCluster(tmp_path, voters=1, extra=[f"--listen-metrics-urls=http://127.0.0.1:{port}"])
    local.start()
    sockets: list[socket.socket] = []
    try:
        await local.wait_ready()
        (server,) = local.voters.values()
        assert server.running is not None
        resource.prlimit(server.running.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
        before = len(os.listdir(f"/proc/{server.running.pid}/fd"))
        for _ in range(FLOOD):
            flood = socket.socket()
            flood.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                flood.connect(("127.0.0.1", port))
            sockets.append(flood)
        async with client.connect(server.endpoint) as hf:
            for n in range(20):
                await hf.put(f"k{n}", os.urandom(100_000))
        # A probe takes a place, however many hold one.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n")
        async with asyncio.timeout(20):
            assert await reader.readuntil(b"ok\n")
        writer.close()
        assert len(os.listdir(f"/proc/{server.running.pid}/fd")) <= before + MAX_PROBES + 50
        assert server.running.poll() is None
    finally:
        for flood in sockets:
            flood.close()
        local.kill()


async def test_unfinished_handshakes_take_no_descriptor_that_the_member_needs(tmp_path: Path) -> None:
    """Connections to a port with TLS that said nothing counted only after their handshake: they took every descriptor,
    and the member stopped when it could not open the next segment of its log."""
    Authority("clients").write_server(tmp_path)
    port, plain = free_ports(2)
    tls = [f"--cert-file={tmp_path}/tls.crt", f"--key-file={tmp_path}/tls.key"]
    urls = f"--listen-client-urls=http://127.0.0.1:{plain},https://127.0.0.1:{port}"
    local = LocalCluster(tmp_path, voters=1, extra=[*tls, urls])
    (server,) = local.voters.values()
    server.inside = ["prlimit", f"--nofile={FILES}:{FILES}"]
    server.port = plain
    server.start()
    sockets: list[socket.socket] = []
    try:
        await local.wait_ready()
        assert server.running is not None
        descriptors = f"/proc/{server.running.pid}/fd"
        before = len(os.listdir(descriptors))
        async with client.connect(server.endpoint, timeout=30) as hf:
            sockets += [socket.create_connection(("127.0.0.1", port)) for _ in range(FLOOD)]
            for n in range(80):  # more than a segment of the log
                await hf.put(f"k{n}", os.urandom(400_000))
        assert len(os.listdir(descriptors)) <= before + FILES - OWN_FILES + 10
        async with client.connect(server.endpoint, timeout=30) as hf:
            await hf.put("a", "1")
        # Silent ones make room for a client that goes on with its handshake.
        trusting = client.Tls.from_directory(tmp_path)
        async with client.connect(f"https://localhost:{port}", tls=trusting, timeout=30) as hf:
            assert (await hf.get("a")) is not None
        assert server.running.poll() is None
    finally:
        for one in sockets:
            one.close()
        local.kill()
        print(local.logs())


async def test_a_member_without_a_descriptor_left_goes_on_once_there_are_some(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    sockets: list[socket.socket] = []
    try:
        await local.wait_ready()
        (server,) = local.voters.values()
        assert server.running is not None
        pid = server.running.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, hard))  # accept() fails with EMFILE from now on
        sockets += [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        while sockets:
            sockets.pop().close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        async with client.connect(server.endpoint, timeout=20.0) as hf:
            await hf.put("a", b"1")
        assert server.running.poll() is None
    finally:
        for one in sockets:
            one.close()
        local.kill()
