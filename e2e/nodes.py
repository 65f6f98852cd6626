"""Nodes of the cluster, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from e2e.kubectl import CALM, get, kubectl, on_node

CONTROL_PLANE = "holdfast-control-plane"


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
