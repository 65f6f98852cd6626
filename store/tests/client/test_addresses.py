"""Names and their addresses: what is known is used at once, and a name server in trouble delays nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from holdfast import client
from holdfast.client import addresses as module
from holdfast.client.addresses import Addresses


class Names:
    """A name server: what it answers, or how long it is silent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []
        self.silent = False
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._find)

    async def _find(self, host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if self.silent:
            await asyncio.sleep(60)
        if host not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(2, 1, 6, "", (address, 0)) for address in self.known[host]]


async def test_every_address_is_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, a=["10.0.0.2", "10.0.0.1"], b=["::1"])
    found = Addresses(["a:1", "b:2", "c:3"], None)
    assert await found.all() == {"10.0.0.1:1": "a:1", "10.0.0.2:1": "a:1", "[::1]:2": "b:2"}
    assert await found.all() == await found.all()
    assert sorted(names.asked) == ["a", "b", "c"], "each name is asked for once"


async def test_a_name_whose_address_failed_is_asked_for_again_and_the_old_address_does_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names(monkeypatch, a=["10.0.0.1"])
    found = Addresses(["a:1"], None)
    assert await found.of("a:1") == ["10.0.0.1:1"]
    names.known["a"] = ["10.0.0.9"]
    assert await found.of("a:1") == ["10.0.0.1:1"]
    found.stale("a:1")
    assert list(await found.all()) == ["10.0.0.1:1"]
    while found._resolving:
        await asyncio.sleep(0)
    assert list(await found.all()) == ["10.0.0.9:1"]


async def test_a_silent_name_server_delays_no_later_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESOLVE_SECONDS", 0.05)
    names = Names(monkeypatch, a=["10.0.0.1"])
    found = Addresses(["a:1", "b:1"], None)
    assert list(await found.all()) == ["10.0.0.1:1"]
    names.silent = True
    monkeypatch.setattr(module, "RESOLVE_SECONDS", 60)
    monkeypatch.setattr(module, "UNKNOWN_SECONDS", 0.0)
    for _ in range(3):
        async with asyncio.timeout(1):
            found.stale("b:1")
            assert list(await found.all()) == ["10.0.0.1:1"]
    found.close()


async def test_addresses_survive_a_restart_without_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = Names(monkeypatch, a=["10.0.0.1"])
    await Addresses(["a:1"], tmp_path / "cache").all()
    assert json.loads((tmp_path / "cache" / "addresses.json").read_text()) == {"a": ["10.0.0.1"]}
    names.known = {}
    assert list(await Addresses(["a:1"], tmp_path / "cache").all()) == ["10.0.0.1:1"]
    (tmp_path / "cache" / "addresses.json").write_text("no JSON")
    assert await Addresses(["a:1"], tmp_path / "cache").all() == {}


async def test_two_endpoints_of_one_address_are_both_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, a=["10.0.0.1"], b=["10.0.0.1"], c=["10.0.0.3"])
    async with client.connect("a:1,b:1") as hf:
        for endpoint in ("a:1", "b:1"):
            assert await hf.connection.order(endpoint=endpoint) == ["10.0.0.1:1"]
        assert await hf.connection.order(endpoint="c:1") == ["10.0.0.3:1"], "one that is not of this client"
        assert await hf.connection.order() == ["10.0.0.1:1"]
