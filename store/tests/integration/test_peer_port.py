"""The peer port of real processes: floods of connections, and a peer that is stopped without a word."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster, free_ports

LIMIT = 1100  # of file descriptors


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def until_put(endpoint: str, key: str) -> None:
    async with asyncio.timeout(60), client.connect(endpoint, timeout=5.0) as hf:
        while True:
            try:
                await hf.put(key, "v")
            except client.ClientError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_connections_to_the_peer_port_do_not_use_up_the_file_descriptors(tmp_path: Path) -> None:
    port, peer = free_ports(2)
    command = [
        *(sys.executable, "-m", "holdfast", "serve", f"--data-dir={tmp_path / 'd'}"),
        f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
    ]

    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as running,
        ExitStack() as stack,
    ):
        try:
            resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
            await until_put(f"127.0.0.1:{port}", "before")
            for n in range(2 * LIMIT):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", peer))
                if n % 50 == 0:
                    await asyncio.sleep(0)
                if n % 1000 == 999:
                    stack.pop_all().close()
                    await until_put(f"127.0.0.1:{port}", f"during{n}")
                    assert descriptors(running.pid) < 400
            await until_put(f"127.0.0.1:{port}", "after")
            assert running.poll() is None
        finally:
            running.kill()


@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_a_stopped_process_is_noticed_and_taken_back(cluster: LocalCluster, who: str) -> None:
    for voter in cluster.voters.values():
        await until_put(voter.endpoint, "all")
    leader = await cluster.leader()
    stopped = next(v for v in cluster.voters.values() if (v is leader) == (who == "leader"))
    others = [v for v in cluster.voters.values() if v is not stopped]
    stopped.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(30):
        while not all("nothing comes back from" in v.log.read_text() for v in others):
            await asyncio.sleep(0.1)
    for other in others:
        await until_put(other.endpoint, "meanwhile")
    stopped.send_signal(signal.SIGCONT)
    await until_put(stopped.endpoint, "after")
