"""`holdfast cells replicate`: its processes are killed, servers of the source go away, and users have rights."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from holdfast import cells, client
from holdfast.cells import Cells
from holdfast.client.txn import Ops
from holdfast.proto import auth_pb2, rpc_pb2
from holdfast_lab.processes import LocalCluster

from .test_cell_replications import PREFIX, Running, equal, pairs, reaches, record
from .test_cells_command import Shell
from .test_registers import clusters, reach  # noqa: F401 - a fixture
from .users import PASSWORDS, ask, enable, grant_role, set_up_users

pytestmark = pytest.mark.timeout(180)
KILLS = 12


async def test_replicators_that_are_killed_at_any_moment(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    shell, chance = Shell(clusters), random.Random()
    async with reach(clusters, 30.0) as them:
        await them.set_up()
        eu = them.client("eu")
        for first in range(0, 1000, 100):
            await eu.txn().then(*(Ops.put(f"/global/{n:04d}", str(n)) for n in range(first, first + 100))).commit()
        both = [shell.start("replicate", "eu", "us", PREFIX) for _ in range(2)]
        try:
            async with pairs(them, "eu", "us") as seen:
                for number in range(KILLS):
                    await reaches(seen, seen() + chance.randrange(1, 40))
                    both[number % 2].kill()
                    both[number % 2].communicate()
                    both[number % 2] = shell.start("replicate", "eu", "us", PREFIX)
            both[0].send_signal(signal.SIGTERM)
            _, said = await asyncio.to_thread(both[0].communicate)
            assert both[0].returncode == 0, said
            assert "Traceback" not in said
        finally:
            for process in both:
                process.kill()
                process.communicate()


async def test_servers_of_the_source_come_and_go(tmp_path: Path) -> None:
    made = {"eu": LocalCluster(tmp_path / "eu", voters=3), "us": LocalCluster(tmp_path / "us", voters=1)}
    async with _started(made), reach(made, 30.0) as them, reach(made, 30.0) as users:
        await them.set_up()
        async with Running(them.replication("eu", "us", PREFIX)), pairs(users, "eu", "us") as seen:
            await reaches(seen, 30)
            for _ in range(2):
                leader = await made["eu"].leader()
                async with client.connect(leader.endpoint, timeout=20) as hf:
                    mine = (await hf.status()).header.member_id
                    others = [m.ID for m in await hf.members() if mine != m.ID]
                    await hf.move_leader(others[0])
                await reaches(seen, seen() + 30)
            for voter in made["eu"].voters.values():
                voter.kill()
                await reaches(seen, seen() + 30)
                voter.start()
                await made["eu"].wait_ready(60)


async def test_a_user_needs_rights(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    async with reach(clusters) as them:
        await them.set_up()
        await them.client("eu").put("/global/a", "1")
        for name in ("eu", "us"):
            hf = them.client(name)
            await set_up_users(hf)
            kinds = {"eu": auth_pb2.Permission.READ, "us": auth_pb2.Permission.READWRITE}
            await ask(hf, "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="replicator"))
            for prefix in ("/global/", "/cells/"):
                right = auth_pb2.Permission(
                    permType=kinds[name], key=prefix.encode(), range_end=prefix[:-1].encode() + b"0"
                )
                await ask(
                    hf, "RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name="replicator", perm=right)
                )
            await enable(hf)
    async with (
        _as_user(clusters, "mat") as mat,
        _as_user(clusters, "root") as root,
        Running(mat.replication("eu", "us", PREFIX)) as runs,
    ):
        await runs.tells("permission denied")
        for name in ("eu", "us"):
            await grant_role(root.client(name), "mat", "replicator")
        await equal(root, "eu", "us")
        await root.client("eu").put("/global/b", "1")
        await equal(root, "eu", "us")


async def test_what_people_see(clusters: dict[str, LocalCluster]) -> None:  # noqa: F811
    shell = Shell(clusters)
    async with reach(clusters) as them:
        await them.set_up()
        await them.client("eu").put("/global/a", "1")
        for wrong, why in (("/", "/cells/"), ("", "empty"), ("/cells/x", "/cells/")):
            code, said = shell.run("replicate", "eu", "us", wrong)
            assert code == 2
            assert why in said
        running = shell.start("replicate", "eu", "us", PREFIX)
        try:
            await equal(them, "eu", "us")
            while (there := await record(them.client("us"))) is None or not there.revision:
                await asyncio.sleep(0.02)
            (row,) = shell.status()["replications"]
            assert (row["source"], row["destination"], row["prefix"]) == ("eu", "us", PREFIX)
            assert row["reached"] == there.revision
            assert row["behind"] >= 0
            code, said = shell.run("status")
            assert (code, "REACHED" in said) == (0, True)
            code, said = shell.run("replicate", "us", "eu", PREFIX)
            assert code == 1
            assert "it would come back to where it came from: us gets /global/ from eu" in said
            clusters["eu"].kill()
            (row,) = shell.status()["replications"]
            assert (row["reached"] >= there.revision, row["behind"]) == (True, None)
            clusters["eu"].start()
            await clusters["eu"].wait_ready(60)
        finally:
            running.send_signal(signal.SIGINT)
            _, said = await asyncio.to_thread(running.communicate)
        assert running.returncode == 0
        assert "/global/ from eu to us: 1 written\n" in said
        for said in ("is not replicated any more", "was not replicated"):
            forgotten = shell.run("replicate", "eu", "us", PREFIX, "--forget")
            assert forgotten == (0, f"/global/ from eu to us {said}\n")
        assert shell.status()["replications"] == []
        assert await them.client("us").get("/global/a") is not None


@asynccontextmanager
async def _started(made: Mapping[str, LocalCluster]) -> AsyncIterator[None]:
    try:
        for cluster in made.values():
            cluster.start()
        for cluster in made.values():
            await cluster.wait_ready(60)
        yield
    finally:
        for cluster in made.values():
            cluster.kill()
            print(cluster.logs())


def _as_user(made: Mapping[str, LocalCluster], user: str) -> Cells:
    clients = {
        name: client.connect(cluster.endpoints, timeout=10, user=user, password=PASSWORDS[user])
        for name, cluster in made.items()
    }
    return cells.connect(clients, timeout=10)
