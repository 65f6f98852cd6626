"""Nodes of the cluster, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from e2e.kubectl import CALM, get, kubectl, on_node

CONTROL_PLANE = "holdfast-control-plane"
_CHAIN = "SITE"


def nodes(tier: str) -> list[str]:
    """The names of the nodes `cloud` or `edge`."""
    return sorted(n["metadata"]["name"] for n in get("nodes", "-l", f"holdfast.dev/tier={tier}")["items"])


@contextmanager
def gone(node: str) -> Iterator[None]:
    """The node leaves: its kubelet and everything that it runs stop, and its object is deleted. At the end it comes
    back."""
    on_node(node, "systemctl", "stop", "kubelet")
    try:
        kubectl("delete", "node", node)
        yield
    finally:
        on_node(node, "systemctl", "start", "kubelet")
        kubectl("wait", "--for=create", f"node/{node}", "--timeout=120s", seconds=150)
        kubectl("wait", "--for=condition=Ready", f"node/{node}", f"--timeout={CALM:g}s", seconds=CALM + 30)


@contextmanager
def drained(node: str) -> Iterator[None]:
    """All pods leave the node, as far as disruption budgets allow it. At the end it takes pods again."""
    words = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={CALM:g}s")
    try:
        kubectl("drain", node, *words, seconds=CALM + 30)
        yield
    finally:
        kubectl("uncordon", node)


@contextmanager
def cut_off(site: list[str]) -> Iterator[None]:
    """These nodes, with the pods on them, reach each other and nothing else. At the end they reach everything again."""
    inside = ",".join(at for node in site for at in _addresses(node))
    for node in site:
        _iptables(node, "-N", _CHAIN)
        _iptables(node, "-A", _CHAIN, "-s", inside, "-d", inside, "-j", "RETURN")
        _iptables(node, "-A", _CHAIN, "-j", "DROP")
    try:
        for node in site:
            _jump(node, "-I")
        yield
    finally:
        for node in site:
            _jump(node, "-D")
            _iptables(node, "-F", _CHAIN)
            _iptables(node, "-X", _CHAIN)


def _addresses(node: str) -> list[str]:
    """Its own, and those of its pods."""
    found = get("node", node)
    own = [a["address"] for a in found["status"]["addresses"] if a["type"] == "InternalIP"]
    return [*own, found["spec"]["podCIDR"]]


def _jump(node: str, how: str) -> None:
    """Insert (-I) or delete (-D) the ways into the chain."""
    for chain, side in (("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i"), ("FORWARD", "-o")):
        _iptables(node, how, chain, side, "eth0", "-j", _CHAIN)


def _iptables(node: str, *words: str) -> None:
    on_node(node, "iptables", "-w", *words)
