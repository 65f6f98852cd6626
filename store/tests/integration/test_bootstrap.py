"""How nodes become members, and what bad input gets: one clear line, and nothing changed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from holdfast import client
from holdfast.proto import holdfast_pb2
from holdfast.storage.damage import EXIT_CODE
from holdfast_lab.processes import LocalCluster, Process, free_ports

from ..certificates import Authority

Change = holdfast_pb2.MembershipChangeRequest


def holdfast(*arguments: str, seconds: float = 20) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    return done.returncode, done.stdout + done.stderr


class Managed:
    """Nodes that wait for an operator."""

    def __init__(self, directory: Path, count: int) -> None:
        ports = free_ports(2 * count)
        self.directory = directory
        self.peers = [f"http://127.0.0.1:{p}" for p in ports[count:]]
        self.nodes = [self._node(n, ports[n]) for n in range(count)]

    def _node(self, n: int, port: int) -> Process:
        arguments = [
            "serve",
            "--bootstrap=managed",
            f"--name=n{n}",
            f"--data-dir={self.directory / f'n{n}'}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls={self.peers[n]}",
        ]
        return Process(f"n{n}", arguments, self.directory / f"n{n}.log", port)

    async def add(self, leader: client.Client, n: int) -> int:
        """Add node n as a learner and promote it; returns its id."""
        async with client.connect(self.nodes[n].endpoint) as hf:
            volume = (await hf.describe()).volume_id
        index = (await leader.membership()).config_index
        await leader.change_membership(
            Change(
                kind=Change.ADD_LEARNER,
                member_id=volume,
                name=f"n{n}",
                peer_urls=[self.peers[n]],
                expected_config_index=index,
            )
        )
        async with asyncio.timeout(30):
            while True:
                found = await leader.membership()
                if any(volume == m.member.ID and m.caught_up for m in found.members):
                    break
                await asyncio.sleep(0.05)
        await leader.change_membership(
            Change(kind=Change.PROMOTE, member_id=volume, expected_config_index=found.config_index)
        )
        return volume


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    found = Managed(tmp_path, 3)
    for node in found.nodes:
        node.start()
    yield found
    for node in found.nodes:
        node.kill()
        print(node.name, node.tail(40), sep="\n")


@pytest.mark.timeout(180)
async def test_a_managed_cluster_is_formed_once_and_replaces_a_lost_volume(managed: Managed) -> None:
    cluster_id = 0x1234567
    async with client.connect(managed.nodes[0].endpoint, timeout=20) as hf:
        node = await hf.describe()
        assert node.state == node.EMPTY
        assert node.cluster_id == 0
        with pytest.raises(client.Unavailable, match="does not belong to a cluster"):
            async with client.connect(managed.nodes[0].endpoint, timeout=0.5) as impatient:
                await impatient.get("k")
        with pytest.raises(client.Refused, match="it was replaced meanwhile"):
            await hf.form(cluster_id, node.volume_id + 1)
        assert await hf.form(cluster_id, node.volume_id) == node.volume_id
        assert await hf.form(cluster_id, node.volume_id) == node.volume_id, "asking again changes nothing"
        with pytest.raises(client.Refused, match="cannot form"):
            await hf.form(cluster_id + 1, node.volume_id)
        assert (await hf.describe()).state == node.FORMED
        with pytest.raises(client.Unavailable):
            async with client.connect(managed.nodes[0].endpoint, timeout=0.5) as impatient:
                await impatient.get("k")
        managed.nodes[0].kill()
        managed.nodes[0].start()
        await hf.open_for_clients(cluster_id)
        await hf.put("k", "v")
        ids = [node.volume_id, await managed.add(hf, 1), await managed.add(hf, 2)]
        assert sorted(m.ID for m in await hf.members() if not m.isLearner) == sorted(ids)

        # A change decided on an old configuration is refused.
        with pytest.raises(client.Refused, match="membership has changed"):
            await hf.change_membership(Change(kind=Change.REMOVE, member_id=ids[1], expected_config_index=1))

        # The volume of n2 is lost: its pod comes back with an empty one. It is a new member, and the old id has to go.
        managed.nodes[2].kill()
        shutil.rmtree(managed.directory / "n2")
        managed.nodes[2].start()
        async with client.connect(managed.nodes[2].endpoint, timeout=20) as fresh:
            empty = await fresh.describe()
            assert empty.state == empty.EMPTY
            assert empty.volume_id not in ids
        index = (await hf.membership()).config_index
        await hf.change_membership(Change(kind=Change.REMOVE, member_id=ids[2], expected_config_index=index))
        new = await managed.add(hf, 2)
        assert new != ids[2]
        for process in managed.nodes:
            async with client.connect(process.endpoint, timeout=20) as each:
                found = await each.get("k")
                assert found is not None
                assert found.value == b"v"


async def test_a_wiped_founder_cannot_found_again(cluster: LocalCluster) -> None:
    await cluster.wait_ready()
    async with client.connect(cluster.endpoints) as hf:
        await hf.put("k", "v")
    wiped = cluster.voters["m2"]
    wiped.kill()
    shutil.rmtree(cluster.directory / "m2")
    wiped.start()
    assert wiped.running is not None
    assert wiped.running.wait(20) == 1
    wiped.running = None
    assert "already belongs to cluster" in wiped.tail()
    assert "A lost volume is not founded again" in wiped.tail()
    others = [p.endpoint for p in cluster.voters.values() if p is not wiped]
    async with client.connect(others) as hf:
        assert (await hf.get("k")) is not None


async def test_another_members_volume_is_refused(cluster: LocalCluster) -> None:
    """m1's data under m2's name and address: its peers know which volume belongs to which member, and refuse it."""
    await cluster.wait_ready()
    for name in ("m1", "m2"):
        cluster.voters[name].kill()
    for part in ("m1", "m2"):
        (cluster.directory / part).rename(cluster.directory / f"{part}.old")
    (cluster.directory / "m1.old").rename(cluster.directory / "m2")
    cluster.voters["m2"].start()
    async with asyncio.timeout(30):
        while "this is member" not in cluster.voters["m3"].tail(40):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--no-such-flag"], "No such option"),
        (["serve", "--election-timeout=100"], "at least five --heartbeat-intervals"),
        (["serve", "--listen-client-urls=nonsense"], "is not a URL"),
        (["serve", "--name=a", "--initial-cluster=b=http://127.0.0.1:1"], "names no member 'a'"),
        (["serve", "--initial-cluster=x"], "is not NAME=URL"),
        (["serve", "--bootstrap=maybe"], "is not static or managed"),
        (["edge", "--endpoints=127.0.0.1:1", "--prefix=/a/", "--prefix=/a/b/"], "already covers"),
        (["edge", "--endpoints=nobody", "--prefix=/a/"], "is not HOST:PORT"),
        (["get", "k", "--endpoints=127.0.0.1:1", "--timeout=0.3"], "no endpoint answered"),
        (["get", "k", "-o", "xml"], "is not table, json or simple"),
        (["txn", "--if", "nonsense"], "is not a compare"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_input_gets_one_clear_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    if arguments[0] in ("serve", "edge"):
        arguments = [*arguments, f"--data-dir={tmp_path / 'data'}"]
    status, output = holdfast(*arguments)
    assert status != 0
    assert words in output.replace("\n", " ")
    assert "Traceback" not in output


def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    status, output = holdfast("serve", f"--data-dir={tmp_path}")
    assert status == 1
    assert "neither empty nor a data directory" in output
    assert sorted(p.name for p in tmp_path.iterdir()) in (["LOCK", "precious"], ["precious"])
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "FORMAT").write_text("holdfast data 99\n")
    status, output = holdfast("serve", f"--data-dir={newer}")
    assert status == 1
    assert "has the format 'holdfast data 99'" in output


async def test_damaged_files_are_named(cluster: LocalCluster) -> None:
    """Rot in the log or the state: one line that names the file, exit 4, and nothing is changed."""
    await cluster.wait_ready()
    async with client.connect(cluster.endpoints) as hf:
        for n in range(20):
            await hf.put("k", str(n))
    rotten, broken = cluster.voters["m1"], cluster.voters["m2"]
    for process in (rotten, broken):
        process.kill()
    segment = next((cluster.directory / "m1" / "log").glob("*.log"))
    data = bytearray(segment.read_bytes())
    data[300] ^= 0xFF
    segment.write_bytes(data)
    (cluster.directory / "m2" / "state" / "00000001" / "CURRENT").write_bytes(b"nonsense")
    for process in (rotten, broken):
        process.start()
        assert process.running is not None
        assert process.running.wait(20) == EXIT_CODE
        process.running = None
        assert "Traceback" not in process.tail(8)
    assert f"{segment}: damaged at offset" in rotten.tail(2)
    assert segment.read_bytes() == bytes(data)
    assert "the state is damaged" in broken.tail(3)


async def test_a_port_and_a_directory_in_use(cluster: LocalCluster, tmp_path: Path) -> None:
    await cluster.wait_ready()
    taken = cluster.voters["m1"]
    status, output = holdfast(
        "serve",
        f"--data-dir={tmp_path / 'x'}",
        f"--listen-client-urls=http://127.0.0.1:{taken.port}",
        f"--listen-peer-urls=http://127.0.0.1:{free_ports(1)[0]}",
    )
    assert status == 1
    assert "is another process using the port?" in output
    status, output = holdfast("serve", f"--data-dir={cluster.directory / 'm1'}")
    assert status == 1
    assert "in use by another process" in output


async def test_certificates_that_do_not_count_are_told(tmp_path: Path) -> None:
    """The flags were given in the belief that clients need a certificate, but the port was open to all."""
    authority = Authority("clients")
    authority.write_server(tmp_path)
    tls = [f"--cert-file={tmp_path / 'tls.crt'}", f"--key-file={tmp_path / 'tls.key'}"]
    alone = LocalCluster(
        tmp_path / "c", voters=1, extra=[*tls, "--client-cert-auth", f"--trusted-ca-file={tmp_path / 'ca.crt'}"]
    )
    alone.start()
    try:
        await alone.wait_ready()
        url = f"http://{alone.endpoints[0]}"
        told = f"{url} is no https URL: --cert-file and --key-file do not count there, nor --client-cert-auth"
        assert told in alone.logs()
    finally:
        alone.kill()
