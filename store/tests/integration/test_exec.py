"""`holdfast exec`: a real command with the keys of a real server as its environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from holdfast import client
from holdfast.cli.child import Runner
from holdfast_lab.processes import LocalCluster

# Appends a line with its variables to a file at each start, and one for each signal that it gets.
TOLD = """
import json, os, signal, sys, time
def told(**what):
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps(dict(what, pid=os.getpid())) + "\\n")
for number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: told(signal=number))
if "ignore-term" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = os.fork() if "helper" in sys.argv else None
if helper == 0:
    time.sleep(600)
told(env=dict(os.environ), helper=helper, group=os.getpgrp())
while True:
    time.sleep(600)
"""


@pytest.fixture
def hf(server: LocalCluster) -> Iterator[client.BlockingClient]:
    with client.connect_blocking(server.endpoints) as made:
        made.delete("/app/", prefix=True)
        made.put("/app/db-url", "one")
        yield made


class Running:
    """A `holdfast exec` of TOLD."""

    def __init__(self, directory: Path, endpoint: str, *options: str, argv: tuple[str, ...] = (), **more: Any) -> None:
        self.lines = directory / "told"
        self.errors = directory / "errors"
        command = [sys.executable, "-m", "holdfast", "exec", "/app/", f"--endpoints={endpoint}", *options, "--"]
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [*command, sys.executable, "-c", TOLD, str(self.lines), *argv], stderr=errors, **more
            )

    def told(self, count: int) -> list[dict[str, Any]]:
        """The first `count` lines, once they are there."""

        def there() -> bool:
            return self.lines.exists() and self.lines.read_text().count("\n") >= count

        until(there, self.said)
        return [json.loads(line) for line in self.lines.read_text().splitlines()]

    def said(self) -> str:
        return self.errors.read_text()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def until(holds: Callable[[], bool], why: Callable[[], str] = str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, why()
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def run(endpoint: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "holdfast", "exec", f"--endpoints={endpoint}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def test_the_keys_are_the_environment(hf: client.BlockingClient, server: LocalCluster) -> None:
    (endpoint,) = server.endpoints
    hf.put("/app/Sub/x", "ü = 1")
    found = run(endpoint, "/app/", "--", sys.executable, "-c", SHOW, env={**os.environ, "OWN": "1", "DB_URL": "before"})
    assert found.returncode == 0, found.stderr
    environment = json.loads(found.stdout)
    assert (environment["DB_URL"], environment["SUB_X"], environment["OWN"]) == ("one", "ü = 1", "1")
    assert "2 variables of revision" in found.stderr
    assert "from the cluster" in found.stderr
    found = run(endpoint, "/app/", "--pristine", "--no-upcase", "--", "/usr/bin/env")
    assert sorted(found.stdout.splitlines()) == ["Sub_x=ü = 1", "db_url=one"]
    hf.put("/app/db.url", "two")
    found = run(endpoint, "/app/", "--", "/usr/bin/env")
    assert (found.returncode, found.stdout) == (1, "")
    assert "b'/app/db-url' and b'/app/db.url' would both be DB_URL" in found.stderr


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("kill -PIPE $$", 141)],
)
def test_the_exit_code_is_that_of_the_command(
    hf: client.BlockingClient, server: LocalCluster, script: str, code: int
) -> None:
    assert run(server.endpoints[0], "/app/", "--", "sh", "-c", script).returncode == code


def test_a_command_that_cannot_be_run(hf: client.BlockingClient, server: LocalCluster, tmp_path: Path) -> None:
    found = run(server.endpoints[0], "/app/", "--", "no-such-command")
    assert (found.returncode, "no such command" in found.stderr) == (127, True)
    (tmp_path / "x").write_text("#!/no/such/interpreter\n")
    (tmp_path / "x").chmod(0o755)
    assert run(server.endpoints[0], "/app/", "--", str(tmp_path / "x")).returncode == 127
    (tmp_path / "x").write_bytes(b"\0no program")
    assert run(server.endpoints[0], "/app/", "--", str(tmp_path / "x")).returncode == 126


def test_a_change_restarts_and_several_restart_once(
    hf: client.BlockingClient, server: LocalCluster, tmp_path: Path
) -> None:
    with Running(tmp_path, server.endpoints[0], "--settle=2") as running:
        (first,) = running.told(1)
        assert first["group"] == first["pid"] != os.getpgrp()
        for n in range(5):
            hf.put("/app/db-url", f"new {n}")
        hf.put("/other", "x")
        first, second = running.told(2)
        assert (first["env"]["DB_URL"], second["env"]["DB_URL"]) == ("one", "new 4")
        assert not alive(first["pid"])
        hf.put("/app/db-url", "new 4")  # no other environment: no restart
        hf.put("/app/db_url", "the same name")
        until(lambda: "the command keeps the values it has" in running.said())
        hf.txn().then(hf.op.delete("/app/db-url"), hf.op.delete("/app/db_url"), hf.op.put("/app/last", "x")).commit()
        *_, third = running.told(3)
        assert "DB_URL" not in third["env"]
        assert len(running.told(3)) == 3
        running.process.terminate()
        assert running.process.wait(30) == 143
        assert not alive(third["pid"])


@pytest.mark.parametrize(("number", "starts"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGHUP, 2)])
async def test_a_signal_just_after_the_old_command_of_a_restart_has_ended(
    tmp_path: Path, number: signal.Signals, starts: int
) -> None:
    """The event loop stands still until the command has ended and the signal is there: it takes up both at once, before
    `replace` goes on."""
    starts_file = tmp_path / "starts"
    runner = Runner("/bin/sh", ("sh", "-c", f"echo x >> {starts_file}; exit $CODE"), grace=60)
    try:
        runner.start({b"CODE": b"7"})
        assert runner.child is not None
        os.waitid(os.P_PID, runner.child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop has to stand still
        os.kill(os.getpid(), number)
        async with asyncio.timeout(60):
            await runner.replace({b"CODE": b"8"})
            assert await runner.ended == (7 if starts == 1 else 8)
        assert starts_file.read_text() == "x\n" * starts
    finally:
        runner.close()


async def test_nothing_is_started_after_a_signal_that_came_before_the_command(tmp_path: Path) -> None:
    runner = Runner("/bin/sh", ("sh", "-c", f"touch {tmp_path / 'started'}"), grace=60)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(60):
        assert await runner.ended == 143
    runner.start({})
    assert runner.child is None


def test_a_command_that_does_not_end_is_killed_with_its_group(
    hf: client.BlockingClient, server: LocalCluster, tmp_path: Path
) -> None:
    with Running(tmp_path, server.endpoints[0], "--settle=0", "--grace=0.3", argv=("ignore-term", "helper")) as running:
        running.told(1)
        hf.put("/app/db-url", "two")
        first, second = running.told(2)
        assert second["env"]["DB_URL"] == "two"
        until(lambda: not alive(first["helper"]))
        assert not alive(first["pid"])
        os.kill(second["pid"], signal.SIGKILL)
        assert running.process.wait(30) == 137
        until(lambda: not alive(second["helper"]))


def test_signals_are_passed_on(hf: client.BlockingClient, server: LocalCluster, tmp_path: Path) -> None:
    with Running(tmp_path, server.endpoints[0], "--on-change=signal", "--signal=USR1", "--settle=0") as running:
        running.told(1)
        running.process.send_signal(signal.SIGHUP)
        assert running.told(2)[1]["signal"] == signal.SIGHUP
        hf.put("/app/db-url", "two")
        assert running.told(3)[2]["signal"] == signal.SIGUSR1
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) in (130, 1), "Python's own end by SIGINT"


def test_no_change_is_told_if_not_wanted(hf: client.BlockingClient, server: LocalCluster, tmp_path: Path) -> None:
    with Running(tmp_path, server.endpoints[0], "--on-change=none", "--settle=0") as running:
        running.told(1)
        hf.put("/app/db-url", "two")
        until(lambda: running.said().count("variables of revision") == 2)
        assert len(running.told(1)) == 1


def test_a_kill_leaves_no_orphan(hf: client.BlockingClient, server: LocalCluster, tmp_path: Path) -> None:
    with Running(tmp_path, server.endpoints[0], argv=("ignore-term",)) as running:
        (first,) = running.told(1)
        running.process.kill()
        until(lambda: not alive(first["pid"]))


def test_children_that_are_inherited_are_waited_for(
    hf: client.BlockingClient, server: LocalCluster, tmp_path: Path
) -> None:
    """As the first process of a container inherits them."""
    inherits = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])"  # subreaper
    )
    script = "(setsid sh -c 'echo $$ > inherited; sleep 0.3' & ) ; until [ -s inherited ]; do :; done; exec sleep 600"
    command = [sys.executable, "-m", "holdfast", "exec", "/app/", f"--endpoints={server.endpoints[0]}", "--"]
    with subprocess.Popen([sys.executable, "-c", inherits, *command, "sh", "-c", script], cwd=tmp_path) as process:
        try:
            until(lambda: (tmp_path / "inherited").exists() and bool((tmp_path / "inherited").read_text()))
            pid = int((tmp_path / "inherited").read_text())
            until(lambda: not Path(f"/proc/{pid}").exists())  # a zombie would stay there
        finally:
            process.terminate()
        assert process.wait(30) == 143


def test_a_start_without_servers(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    (endpoint,) = local.endpoints
    file = f"--file={tmp_path / 'kept'}"
    try:
        with client.connect_blocking(local.endpoints, timeout=30) as hf:
            hf.put("/app/x", "1")
        assert run(endpoint, "/app/", file, "--", "true").returncode == 0
        local.kill()
        found = run(endpoint, "/app/", file, "--", "printenv", "X")
        assert (found.returncode, found.stdout) == (0, "1\n"), found.stderr
        assert "from the last good file, up to" in found.stderr
        found = run(endpoint, "/app/", file, "--max-age=0.001", "--", "printenv", "X")
        assert (found.returncode, found.stdout) == (3, "")
        assert "over --max-age" in found.stderr
        found = run(endpoint, "/app/", "--timeout=0.5", "--", "printenv", "X")
        assert (found.returncode, found.stdout) == (3, "")
        found = run(endpoint, "/other/", file, "--", "true")
        assert (found.returncode, "use another file" in found.stderr) == (1, True)
        with Running(tmp_path, endpoint, file, "--settle=0", "--grace=5") as running:
            assert running.told(1)[0]["env"]["X"] == "1"
            local.start()
            with client.connect_blocking(local.endpoints, timeout=30) as hf:
                hf.put("/app/x", "2")
            assert running.told(2)[1]["env"]["X"] == "2"
    finally:
        local.kill()


def test_a_signal_before_the_command_has_begun_ends_it(tmp_path: Path) -> None:
    with Running(tmp_path, "127.0.0.1:1", "--timeout=60") as running:
        until(lambda: signal.SIGTERM in caught(running.process.pid))
        running.process.terminate()
        assert running.process.wait(30) == 143


def caught(pid: int) -> set[int]:
    """The signals that the process handles."""
    mask = int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}
