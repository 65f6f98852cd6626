"""Who has the key of an edge replica or of an application is no voter: the peer port refuses it."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from holdfast.member.frames import LOWEST_PROTOCOL, PROTOCOL, frame
from holdfast.proto import raft_pb2

from e2e.clusters import REPLICAS, Cluster, namespace
from e2e.kubectl import ENVIRONMENT

pytestmark = pytest.mark.timeout(1800)

REFUSED = ("client", "edge", "operator")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with namespace("stolen-edge-key") as name:
        made = Cluster(name)
        made.apply()
        made.kubectl("apply", "-f", "-", stdin=made.pool())
        made.wait_ready()
        made.pool_ready()
        yield made


@contextmanager
def _forwarded(cluster: Cluster, pod: str) -> Iterator[int]:
    """A local port that leads to the peer port of a pod."""
    words = ["kubectl", "-n", cluster.namespace, "port-forward", f"pod/{pod}", ":2380"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 2380
            yield int(line.split("127.0.0.1:")[1].split()[0])
        finally:
            running.terminate()


def _secret(cluster: Cluster, role: str) -> str:
    if role != "edge":
        return f"shop-{role}-tls"
    stateful = cluster.get("statefulset", "-l", f"holdfast.dev/cluster=shop,{REPLICAS}")["items"][0]
    return f"{stateful['metadata']['name']}-tls"


def _context(cluster: Cluster, secret: str, directory: Path) -> ssl.SSLContext:
    """A TLS client that has what is in the Secret."""
    for name, value in cluster.get("secret", secret)["data"].items():
        (directory / name).write_bytes(base64.b64decode(value))
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.check_hostname = False  # it is reached by a forwarded port
    context.load_cert_chain(str(directory / "tls.crt"), str(directory / "tls.key"))
    return context


def _greet(cluster: Cluster, port: int, context: ssl.SSLContext, purpose: str) -> raft_pb2.Hello:
    """Say that we are voter 1, to voter 0; returns its answer. What an attacker has to know is no secret."""
    members = cluster.members()
    hello = raft_pb2.Hello(
        protocol=LOWEST_PROTOCOL,
        speaks=PROTOCOL,
        cluster_id=int(cluster.object()["status"]["clusterID"], 16),
        from_id=int(members["shop-voter-1"], 16),
        to_id=int(members["shop-voter-0"], 16),
        volume_id=int(members["shop-voter-1"], 16),  # a member has the id of the volume that it was made on
        purpose=purpose,
    )
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(frame(hello))
        with tls.makefile("rb") as reader:
            size = int.from_bytes(reader.read(4), "big")
            return raft_pb2.Hello.FromString(reader.read(size))


@pytest.mark.parametrize("purpose", ["messages", "snapshot", "founding", "claim"])
@pytest.mark.parametrize("role", REFUSED)
def test_stolen_edge_key_is_refused(cluster: Cluster, tmp_path: Path, role: str, purpose: str) -> None:
    context = _context(cluster, _secret(cluster, role), tmp_path)
    with _forwarded(cluster, "shop-voter-0") as port:
        answer = _greet(cluster, port, context, purpose)
    assert "is not that of a peer" in answer.refused
    assert answer.cluster_id == 0, "who is refused learns nothing"


def test_stolen_edge_key_the_peers_own_is_taken(cluster: Cluster, tmp_path: Path) -> None:
    context = _context(cluster, _secret(cluster, "peer"), tmp_path)
    with _forwarded(cluster, "shop-voter-0") as port:
        answer = _greet(cluster, port, context, "messages")
    assert answer.refused == ""
    assert answer.cluster_id == int(cluster.object()["status"]["clusterID"], 16)
    cluster.wait_ready()
