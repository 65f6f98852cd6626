"""How long a well-behaved client waits while one connection attacks the server: each attack by itself.

    python -m tests.fuzz.alone [SECONDS [NAME...]]        (a part of `make fuzz`)

A round of the client is a put and a linearizable read of it. Each attack has a line: rounds without and with it, right
after each other on one server. The run fails if the 99th percentile is 250 ms or more, or if the server ends.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast import client
from holdfast.proto import rpc_pb2
from holdfast_lab.processes import LocalCluster

from .attacks import ATTACKS

BOUND_SECONDS = 0.25
WITH_USERS = {"future-tokens"}
PASSWORD = "secret"


@dataclass(frozen=True)
class Waits:
    """How long rounds took, in seconds."""

    seconds: list[float]

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[len(self.seconds) * 99 // 100]

    def __str__(self) -> str:
        return f"{len(self.seconds):>7,}{self.p99 * 1e3:>9.1f}{max(self.seconds) * 1e3:>9.1f}"


async def measure(hf: client.Client, seconds: float) -> Waits:
    waits: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        value = str(len(waits))
        await hf.put("/well-behaved", value)
        found = await hf.get("/well-behaved")
        assert found is not None
        assert found.value == value.encode()
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.005)
    return Waits(waits)


async def beside(name: str, directory: Path, seconds: float) -> tuple[Waits, Waits]:
    """Rounds without the attack, and with it."""
    local = LocalCluster(directory, voters=1, extra=["--bcrypt-cost=4"])
    (process,) = local.voters.values()
    local.start()
    try:
        await local.wait_ready()
        users = name in WITH_USERS
        if users:
            await _enable_users(process.endpoint)
        user, password = ("root", PASSWORD) if users else ("", "")
        async with client.connect(process.endpoint, timeout=30.0, user=user, password=password) as hf:
            await measure(hf, 0.5)
            quiet = await measure(hf, seconds)
            words = ["-m", "tests.fuzz.attacks", name, str(process.port), str(seconds + 2)]
            attacker = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.DEVNULL)
            try:
                await asyncio.sleep(1.5)
                attacked = await measure(hf, seconds)
            finally:
                await attacker.wait()
        assert process.running is not None
        assert process.running.poll() is None, f"{name}: the server ended\n{process.tail(40)}"
        log = process.log.read_text(errors="replace")
        assert "Traceback" not in log, f"{name}\n{process.tail(60)}"
        return quiet, attacked
    except client.ClientError as error:
        raise AssertionError(f"{name}: {error}\n{process.tail(40)}") from error
    finally:
        local.kill()


async def _enable_users(endpoint: str) -> None:
    async with client.connect(endpoint) as hf:
        of = "/etcdserverpb.Auth/"
        user = rpc_pb2.AuthUserAddRequest(name="root", password=PASSWORD)
        await hf.connection.call(of + "UserAdd", user, rpc_pb2.AuthUserAddResponse, idempotent=False)
        grant = rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")
        await hf.connection.call(
            of + "RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root"), rpc_pb2.AuthRoleAddResponse, idempotent=False
        )
        await hf.connection.call(of + "UserGrantRole", grant, rpc_pb2.AuthUserGrantRoleResponse, idempotent=False)
        await hf.connection.call(
            of + "AuthEnable", rpc_pb2.AuthEnableRequest(), rpc_pb2.AuthEnableResponse, idempotent=False
        )


async def run(seconds: float, names: list[str]) -> list[str]:
    """Prints the table. Returns what was wrong."""
    print(f"{'':>18}{'rounds alone':>25}{'with the attack':>25}")
    print(f"{'attack':>18}" + f"{'n':>7}{'p99 ms':>9}{'max ms':>9}" * 2)
    wrong: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="holdfast-alone-") as directory:
            try:
                quiet, attacked = await beside(name, Path(directory), seconds)
            except AssertionError as error:
                wrong.append(str(error))
                print(f"{name:>18}  failed: {str(error).splitlines()[0]}", flush=True)
                continue
        print(f"{name:>18}{quiet}{attacked}", flush=True)
        if attacked.p99 >= BOUND_SECONDS:
            wrong.append(f"{name}: one of a hundred rounds takes {attacked.p99 * 1e3:.0f} ms or more")
    return wrong


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    wrong = asyncio.run(run(seconds, sys.argv[2:] or list(ATTACKS)))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
