"""Which certificates are accepted as a peer's: not all that the CA has signed."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from holdfast.cert_names import CertNames
from holdfast.member.frames import frame, read_frame
from holdfast.proto import raft_pb2
from holdfast.tls import TlsFiles
from holdfast_lab.processes import free_ports

from ..certificates import Authority
from .nodes import cluster

ROLE = "holdfast://shop/peer"
SHOWN = {
    "subject": ((("organizationName", "o"),), (("commonName", "m1"),)),
    "subjectAltName": (("DNS", "*.peers.svc"), ("IP Address", "10.0.0.1"), ("URI", ROLE)),
}


@pytest.mark.parametrize(
    ("names", "accepted"),
    [
        (CertNames(), True),
        (CertNames(common_names=("m0", "m1")), True),
        (CertNames(common_names=("M1", "m")), False),
        (CertNames(hostnames=("a.peers.svc",)), True),
        (CertNames(hostnames=("A.PEERS.svc",)), True),
        (CertNames(hostnames=("a.b.peers.svc", ".peers.svc", "peers.svc", "m1")), False),
        (CertNames(hostnames=("10.0.0.1",)), True),
        (CertNames(hostnames=("10.0.0.2",)), False),
        (CertNames(uris=(ROLE,)), True),
        (CertNames(uris=("holdfast://shop/client", "holdfast://shop")), False),
    ],
)
def test_which_certificates_are_meant(names: CertNames, accepted: bool) -> None:
    assert (names.refusal(SHOWN) == "") is accepted
    assert (names.refusal(None) == "") is not names.given


@pytest.mark.parametrize("shown", [("peer", "app"), ("app", "peer"), ("peer", "peer")])
def test_of_several_common_names_none_counts(shown: tuple[str, ...]) -> None:
    certificate = {**SHOWN, "subject": tuple((("commonName", name),) for name in shown)}
    assert "2 common names" in CertNames(common_names=("peer",)).refusal(certificate)
    assert not CertNames(uris=(ROLE,)).refusal(certificate)  # where another name decides, it does not matter
    together = {"subject": (tuple(("commonName", name) for name in shown),)}  # in one part of the subject
    assert "2 common names" in CertNames(common_names=("peer",)).refusal(together)


async def test_a_clients_certificate_of_the_same_ca_is_no_members(tmp_path: Path) -> None:
    authority = Authority("one for all")
    authority.write_server(tmp_path, ROLE)
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    async with cluster(tmp_path, tls=files, names=CertNames(uris=(ROLE,))) as nodes:
        await nodes.put_everywhere(b"k")
        leader = nodes.leader
        assert leader is not None
        follower = nodes.others(leader)[0]
        context = ssl.create_default_context(cadata=authority.certificate.decode())
        authority.load_client(context, "alice", tmp_path)
        for purpose in ("messages", "snapshot", "founding", "claim"):
            reader, writer = await asyncio.open_connection("127.0.0.1", nodes.ports[leader], ssl=context)
            writer.write(frame(nodes.nodes[follower].hello(nodes.id(leader), purpose)))
            async with asyncio.timeout(10):
                answer = raft_pb2.Hello.FromString(await read_frame(reader))
                assert answer.refused == "the certificate of 'alice' is not that of a peer"
                assert answer.cluster_id == 0
                assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "any client's certificate could join as a member"),
        (["--peer-accept-any-certificate"], ""),
        (["--peer-cert-allowed-cn=server"], ""),
        (["--peer-cert-allowed-cn=server", "--peer-cert-allowed-hostname=h"], "exclude each other"),
    ],
)
def test_one_ca_for_clients_and_members_has_to_be_meant(tmp_path: Path, flags: list[str], line: str) -> None:
    authority = Authority("one for all")
    authority.write_server(tmp_path)
    again = tmp_path / "the-same.crt"
    again.write_bytes(b"# another text\n" + authority.certificate)
    client, peer = free_ports(2)
    command = [
        *(sys.executable, "-m", "holdfast", "serve", f"--data-dir={tmp_path / 'd'}"),
        f"--listen-client-urls=https://127.0.0.1:{client}",
        f"--listen-peer-urls=https://127.0.0.1:{peer}",
        f"--cert-file={tmp_path / 'tls.crt'}",
        f"--key-file={tmp_path / 'tls.key'}",
        f"--trusted-ca-file={tmp_path / 'ca.crt'}",
        f"--peer-cert-file={tmp_path / 'tls.crt'}",
        f"--peer-key-file={tmp_path / 'tls.key'}",
        f"--peer-trusted-ca-file={again}",
        *flags,
    ]
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as running:
        try:
            if line:
                assert running.wait(30) == 1
                assert line in " ".join(log.read_text().split())
                return
            while "of cluster" not in log.read_text():
                assert running.poll() is None, log.read_text()
        finally:
            running.kill()
