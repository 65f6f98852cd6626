"""Servers in network namespaces of their own, which can be cut off as in a real network: packets are dropped, in one
direction or both, and no connection is closed.

There is a namespace with a bridge (the hub), where the clients run, and one namespace for each server. A direction is
cut by a wrong hardware address for the other side, so that packets are sent and no interface receives them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

NOBODY = "02:00:00:00:00:01"  # a hardware address that no interface has


class NoNamespaces(Exception):
    """Network namespaces cannot be made here; the text says why."""


def _ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NoNamespaces("the program ip is not installed (Debian's package iproute2)") from error
    if done.returncode:
        raise NoNamespaces(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Islands:
    """The hub and one namespace for each name. Use as a context manager."""

    def __init__(self, names: Sequence[str], tag: str = "") -> None:
        """`tag`: use the islands that another process has made with this tag."""
        self._tag = tag or f"hf{os.getpid()}"
        self.names = list(names)
        self.hub = f"{self._tag}-hub"

    def __enter__(self) -> Islands:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.hub, *map(self.namespace, self.names)):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def namespace(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def address(self, name: str) -> str:
        return f"10.77.0.{10 + self.names.index(name)}"

    def inside(self, name: str) -> list[str]:
        """The prefix of a command that is to run in the namespace of this server ("hub": in the hub)."""
        return ["ip", "netns", "exec", self.hub if name == "hub" else self.namespace(name)]

    def _build(self) -> None:
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.hub, "address", "add", "10.77.0.1/24", "dev", "bridge")
        for interface in ("lo", "bridge"):
            _ip("-n", self.hub, "link", "set", interface, "up")
        for name in self.names:
            namespace = self.namespace(name)
            _ip("netns", "add", namespace)
            _ip("-n", self.hub, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("-n", self.hub, "link", "set", name, "master", "bridge", "up")
            _ip("-n", namespace, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                _ip("-n", namespace, "link", "set", interface, "up")

    def cut(self, frm: str, to: str) -> None:
        """Drop the packets from `frm` to `to` from now on."""
        place = ("-n", self.namespace(frm), "neighbour")
        _ip(*place, "replace", self.address(to), "lladdr", NOBODY, "dev", "eth0", "nud", "permanent")

    def heal(self, frm: str, to: str) -> None:
        _ip("-n", self.namespace(frm), "neighbour", "del", self.address(to), "dev", "eth0")
