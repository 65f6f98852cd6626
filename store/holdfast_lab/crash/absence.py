"""How long a member needs to catch up after an absence, for each kind of absence.

Each round takes a follower away, writes more than the leader keeps of its log and more than it sends ahead, brings the
follower back, and waits until it has applied all of it. The command `crashtest --absences ROUNDS` runs it; the part
that talks to the servers runs as a process of its own inside the hub of `crash.islands`.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from holdfast import client
from holdfast.proto import rpc_pb2

from holdfast_lab.crash.islands import Islands
from holdfast_lab.processes import Process

NAMES = ("m1", "m2", "m3")
CLIENT_PORT, PEER_PORT = 2379, 2380
WRITES = 9_000  # more than the log keeps
WRITERS = 12
GIVE_UP_SECONDS = 60.0


class NotCaughtUp(Exception):
    """A member that can be reached does not catch up; the text says which, how it was away, and its progress."""


class Absences:
    """Three servers; one follower after the other is away for a while."""

    def __init__(self, islands: Islands, directory: Path) -> None:
        self._islands = islands
        self._directory = directory
        self.processes = {name: self._process(name, "new", NAMES) for name in NAMES}
        self.kinds: dict[str, Callable[[str], Awaitable[float]]] = {
            "killed": self._killed,
            "frozen": self._frozen,
            "cut silently": self._cut_silently,
            "cut towards it": self._cut_towards,
            "cut from it": self._cut_from,
            "cut silently, then restarted": self._cut_and_restarted,
            "emptied": self._emptied,
            "cut silently for 60 s": self._cut_for_a_minute,
        }

    def _url(self, name: str, port: int) -> str:
        return f"http://{self._islands.address(name)}:{port}"

    def endpoint(self, name: str) -> str:
        return f"{self._islands.address(name)}:{CLIENT_PORT}"

    def _process(self, name: str, state: str, members: tuple[str, ...]) -> Process:
        arguments = [
            "serve",
            f"--name={name}",
            f"--data-dir={self._directory / name}",
            f"--listen-client-urls={self._url(name, CLIENT_PORT)}",
            f"--listen-peer-urls={self._url(name, PEER_PORT)}",
            f"--initial-cluster={','.join(f'{n}={self._url(n, PEER_PORT)}' for n in members)}",
            f"--initial-cluster-state={state}",
        ]
        log = self._directory / f"{name}.log"
        return Process(name, arguments, log, CLIENT_PORT, inside=self._islands.inside(name))

    async def start(self) -> None:
        for process in self.processes.values():
            process.start()
        for name in NAMES:
            async with client.connect(self.endpoint(name), timeout=30.0) as hf:
                await hf.get("ready?")

    def kill(self) -> None:
        for process in self.processes.values():
            process.kill()

    async def round(self, kind: str) -> float:
        """Returns the seconds from when the follower could be reached again until it had caught up."""
        statuses = {name: await self._status(name) for name in NAMES}
        follower = next(n for n, status in statuses.items() if status.leader != status.header.member_id)
        return await self.kinds[kind](follower)

    # ---- ways to be away -----------------------------------------------------------------------------------

    async def _killed(self, name: str) -> float:
        self.processes[name].kill()
        await self._write(name)
        self.processes[name].start()
        return await self._caught_up(name, "killed")

    async def _frozen(self, name: str) -> float:
        self.processes[name].send_signal(signal.SIGSTOP)
        try:
            await self._write(name)
        finally:
            self.processes[name].send_signal(signal.SIGCONT)
        return await self._caught_up(name, "frozen")

    async def _cut(self, name: str, kind: str, *, towards: bool, back: bool, seconds: float = 0.0) -> float:
        began = time.monotonic()
        with self._cut_off(name, towards=towards, back=back):
            await self._write(name)
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))  # the length of the cut is the point
        return await self._caught_up(name, kind)

    @contextlib.contextmanager
    def _cut_off(self, name: str, *, towards: bool = True, back: bool = True) -> Iterator[None]:
        others = [n for n in NAMES if n != name]
        links = [(n, name) for n in others if towards] + [(name, n) for n in others if back]
        for link in links:
            self._islands.cut(*link)
        try:
            yield
        finally:
            for link in links:
                self._islands.heal(*link)

    async def _cut_silently(self, name: str) -> float:
        return await self._cut(name, "cut silently", towards=True, back=True)

    async def _cut_towards(self, name: str) -> float:
        return await self._cut(name, "cut towards it", towards=True, back=False)

    async def _cut_from(self, name: str) -> float:
        return await self._cut(name, "cut from it", towards=False, back=True)

    async def _cut_for_a_minute(self, name: str) -> float:
        return await self._cut(name, "cut silently for 60 s", towards=True, back=True, seconds=60.0)

    async def _cut_and_restarted(self, name: str) -> float:
        """The leader counts the messages that it sent meanwhile as in flight; they are lost with the process."""
        with self._cut_off(name):
            await self._write(name)
            self.processes[name].kill()
            await self._write(name)
        self.processes[name].start()
        return await self._caught_up(name, "cut silently, then restarted")

    async def _emptied(self, name: str) -> float:
        """Its volume is lost: the old id is removed, a new id joins as a learner and is promoted."""
        others = [n for n in NAMES if n != name]
        old = (await self._status(name)).header.member_id
        self.processes[name].kill()
        shutil.rmtree(self._directory / name)
        await self._write(name)
        async with client.connect([self.endpoint(n) for n in others], timeout=10.0) as hf:
            await self._membership(hf, "MemberRemove", rpc_pb2.MemberRemoveRequest(ID=old))
            add = rpc_pb2.MemberAddRequest(peerURLs=[self._url(name, PEER_PORT)], isLearner=True)
            await self._membership(hf, "MemberAdd", add)
            self.processes[name] = self._process(name, "existing", NAMES)
            self.processes[name].start()
            took = await self._caught_up(name, "emptied")
            new = (await self._status(name)).header.member_id
            await self._membership(hf, "MemberPromote", rpc_pb2.MemberPromoteRequest(ID=new))
        return took

    @staticmethod
    async def _membership(
        hf: client.Client,
        method: str,
        request: rpc_pb2.MemberRemoveRequest | rpc_pb2.MemberAddRequest | rpc_pb2.MemberPromoteRequest,
    ) -> None:
        """Retry until the cluster accepts the change: a promotion is refused until the learner is in sync."""
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                await hf.connection.call(
                    f"/etcdserverpb.Cluster/{method}", request, rpc_pb2.MemberPromoteResponse, idempotent=False
                )
                return
            except client.ClientError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)

    # ---- writing, and waiting ------------------------------------------------------------------------------

    async def _write(self, away: str) -> None:
        endpoints = [self.endpoint(n) for n in NAMES if n != away]

        async def some(hf: client.Client, count: int, writer: int) -> None:
            for _ in range(count):
                await hf.put(f"/absence/{writer}", b"x" * 100)

        async with client.connect(endpoints, timeout=20.0) as hf:
            await asyncio.gather(*(some(hf, WRITES // WRITERS, n) for n in range(WRITERS)))
            revision = (await hf.put("/absence/end", b"")).revision
            await hf.compact(revision)

    async def _status(self, name: str) -> rpc_pb2.StatusResponse:
        async with client.connect(self.endpoint(name), timeout=10.0) as hf:
            return await hf.status()

    async def _caught_up(self, name: str, kind: str) -> float:
        began = time.monotonic()
        reach = max([(await self._status(n)).raftAppliedIndex for n in NAMES if n != name])
        async with client.connect(self.endpoint(name), timeout=0.5) as hf:
            index = 0
            while time.monotonic() < began + GIVE_UP_SECONDS:
                try:
                    status = await hf.status()
                except client.ClientError:
                    continue  # it is starting
                index = status.raftAppliedIndex
                if index >= reach and status.leader:
                    return time.monotonic() - began
                await asyncio.sleep(0.01)
        raise NotCaughtUp(f"{name}, {kind}: at index {index} of {reach} after {GIVE_UP_SECONDS:g} s")


async def _measure(rounds: int, kinds: list[str], tag: Islands, directory: Path) -> None:
    absences = Absences(tag, directory)
    try:
        await absences.start()
        print("| away | rounds | median s | worst s |\n|---|---|---|---|", flush=True)
        for kind in kinds or list(absences.kinds):
            times = [await absences.round(kind) for _ in range(rounds)]
            print(f"| {kind} | {rounds} | {statistics.median(times):.2f} | {max(times):.2f} |", flush=True)
    finally:
        absences.kill()


def absences(rounds: int, kinds: list[str], keep: Path | None) -> int:
    """Make the namespaces, and measure inside of them. Returns the exit code. Raises NoNamespaces."""
    directory = keep or Path(tempfile.mkdtemp(prefix="holdfast-absence-"))
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with Islands(NAMES) as islands:
            words = [islands.hub.removesuffix("-hub"), str(rounds), str(directory), *kinds]
            command = [*islands.inside("hub"), sys.executable, "-m", "holdfast_lab.crash.absence", *words]
            return subprocess.run(command, check=False).returncode
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


def main(words: list[str]) -> None:
    tag, rounds, directory, *kinds = words
    try:
        asyncio.run(_measure(int(rounds), kinds, Islands(NAMES, tag), Path(directory)))
    except NotCaughtUp as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
