"""`holdfast cells`, as it is called in a shell, on three clusters of real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from holdfast import client
from holdfast.cells import part_wire, wire
from holdfast.cells.identity import Identity
from holdfast.client.txn import Key, Ops
from holdfast.proto import cells_pb2
from holdfast_lab.processes import LocalCluster

pytestmark = pytest.mark.timeout(120)
NAMES = ("eu", "us", "ap")
OUTCOMES = 2_100  # more than two pages


class Shell:
    """Runs the command on these clusters, which are set up."""

    def __init__(self, clusters: dict[str, LocalCluster]) -> None:
        self.clusters = clusters
        places = " ".join(f"{name}={','.join(cluster.endpoints)}" for name, cluster in clusters.items())
        self._environment = {**os.environ, "HOLDFAST_CELLS": places}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "holdfast", "cells", *words],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, text: str = "") -> tuple[int, str]:
        """The exit code, and what it printed."""
        process = self.start(*words)
        out, err = process.communicate(text, timeout=60)
        assert "Traceback" not in err
        return process.returncode, out + err

    def status(self, code: int = 0) -> dict[str, Any]:
        process = self.start("status", "-o", "json", "--timeout=3")
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert err == ("" if code == 0 else "error: too few cells answer for a quorum: without eu, us\n")
        found: dict[str, Any] = json.loads(out)
        return found | {"cells": {row["cell"]: row for row in found["cells"]}}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    clusters = {name: LocalCluster(tmp_path_factory.mktemp(name), voters=1) for name in NAMES}
    try:
        for cluster in clusters.values():
            cluster.start()
        for cluster in clusters.values():
            asyncio.run(cluster.wait_ready(60))
        shell = Shell(clusters)
        code, said = shell.run("status")
        assert code == 1
        assert said.count("not set up") == 3
        assert "error: no cell that answers is set up; `holdfast cells init` sets them up\n" in said
        assert shell.run("init") == (0, "the cells are set up: ap, eu, us (version 1)\n")
        yield shell
    finally:
        for cluster in clusters.values():
            cluster.kill()
            print(cluster.logs())


@asynccontextmanager
async def into(shell: Shell, cell: str) -> AsyncIterator[client.Client]:
    async with client.connect(shell.clusters[cell].endpoints) as hf:
        yield hf


def test_a_register_is_set_on_a_condition(shell: Shell) -> None:
    assert shell.run("register", "get", "primary") == (1, "error: the register primary has no value\n")
    assert shell.run("register", "set", "primary", "eu", "--if-absent") == (0, "eu\n")
    code, said = shell.run("register", "set", "primary", "us", "--if-absent")
    assert (code, said) == (1, "eu\nerror: the register primary was not set: it has a value\n")
    code, said = shell.run("register", "set", "primary", "ap", "--if", "us")
    assert (code, said) == (1, "eu\nerror: the register primary was not set: it has another value\n")
    assert shell.run("register", "set", "primary", "-", "--if=eu", text="us") == (0, "us\n")
    assert shell.run("register", "get", "primary") == (0, "us\n")


async def test_a_transaction_moves_a_key(shell: Shell, tmp_path: Path) -> None:
    async with into(shell, "eu") as eu, into(shell, "us") as us:
        await eu.put("/stock", "1")
        move = "at eu\nif /stock = 1\ndelete /stock\nat us\nif /stock absent\nput /stock 1  # moved\n"
        file = tmp_path / "move"
        file.write_text(move)
        assert shell.run("txn", str(file)) == (0, "committed\n")
        assert await eu.get("/stock") is None
        moved = await us.get("/stock")
        assert moved is not None
        assert moved.value == b"1"
        code, said = shell.run("txn", text=move)
        assert code == 1
        assert said in {f"not done: a compare at {cell} does not hold\n" for cell in ("eu", "us")}  # who says it first
        # The transaction of a coordinator that is gone is shown, and whoever meets it ends it.
        part = cells_pb2.TransactionPart(txn="t", session="s", cells=["us"], sessions=["s"])
        part.writes.append(Ops.put("/stock", "2"))
        part.begun = time.time_ns() // 1_000_000 - 60_000
        await (
            us.txn()
            .then(
                Ops.put(part_wire.mark_key("t"), part.SerializeToString()), Ops.put(part_wire.INTENTS + b"/stock", "t")
            )
            .commit()
        )
        row = shell.status()["cells"]["us"]
        assert row["open"] == 1
        assert 60 <= row["oldest_seconds"] < 180
        assert shell.run("txn", text="at us\nput /stock 3") == (0, "committed\n")


async def test_messages_are_sent_and_delivered(shell: Shell) -> None:
    for number in (1, 2):  # the second one will be refused
        text = "if /seat absent\nput /seat taken\nput '/the seat' 'at the window'\n"
        assert shell.run("queue", "send", "eu", "us", text=text) == (0, f"message {number} sent\n")
    assert json.loads(shell.run("queue", "lag", "eu", "us", "-o", "json")[1]) == {"sent": 2, "arrived": 0, "waiting": 2}
    courier = shell.start("queue", "run", "eu", "us")
    assert courier.stderr is not None
    async with asyncio.timeout(60), into(shell, "us") as us:
        async for event in us.watch("/cells/inbox/eu/last", start_revision=1):
            if event.kv.value == b"2":
                break
        assert (await us.range("/the seat")).kvs[0].value == b"at the window"
    assert "eu to us: 1 delivered" in await asyncio.to_thread(courier.stderr.readline)
    courier.send_signal(signal.SIGTERM)
    _, err = courier.communicate(timeout=30)
    assert courier.returncode == 0
    assert "Traceback" not in err
    assert shell.run("queue", "refused", "eu", "us") == (
        0,
        "# message 2\nif /seat absent\nput /seat taken\nput '/the seat' 'at the window'\n",
    )
    (queue,) = shell.status()["queues"]
    known = {"source": "eu", "destination": "us", "sent": 2, "arrived": 2, "waiting": 0, "refused": 1}
    assert queue == known


async def test_all_outcomes_are_counted_however_many(shell: Shell) -> None:
    assert shell.run("txn", text="at ap\nput /x 1") == (0, "committed\n")
    async with into(shell, "ap") as ap:
        (kept,) = (await ap.range(part_wire.TRANSACTIONS, prefix=True)).kvs
        for first in range(0, OUTCOMES, 100):
            marks = [Ops.put(part_wire.mark_key(f"{n:08d}"), kept.value) for n in range(first, first + 100)]
            await ap.txn().then(*marks).commit()
        assert shell.status()["cells"]["ap"]["outcomes"] == 1 + OUTCOMES


async def test_a_restored_cell_does_not_count(shell: Shell) -> None:
    async with into(shell, "ap") as ap:
        known = await ap.get(wire.SELF)
        assert known is not None
        itself = Identity.unpacked(known.value)
        another = Identity("ap", 0xABC, itself.set)
        assert (
            await ap.txn().if_(Key(wire.SELF).version == 1).then(Ops.put(wire.SELF, another.packed())).commit()
        ).succeeded
        code, said = shell.run("status")
        assert code == 0
        assert f"restored: does not count  yes     {itself.cluster_id:x}, was abc" in said
        await ap.put(wire.SELF, known.value)


def test_status_says_which_cells_are_away(shell: Shell) -> None:
    """The last one: it stops two of the clusters."""
    shell.clusters["eu"].kill()
    found = shell.status()
    assert found["quorum"]
    assert (found["cells"]["us"]["state"], found["cells"]["us"]["counts"]) == ("answers", True)
    assert "no answer" in found["cells"]["eu"]["state"]
    assert not found["cells"]["eu"]["counts"]
    assert found["cells"]["eu"]["in_set"]
    assert shell.run("register", "get", "primary") == (0, "us\n"), "one cell does not hold up the others"
    shell.clusters["us"].kill()
    found = shell.status(code=1)
    assert not found["quorum"]
    assert found["cells"]["ap"]["state"] == "answers"
    code, said = shell.run("register", "set", "primary", "ap", "--timeout=1")
    assert code == 3
    assert said.startswith("error: primary: too few cells answered (")
    assert said.count("\n") == 1
