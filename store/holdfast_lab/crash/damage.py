"""Damage to any one file of a stopped member, as disks, file systems and people cause it.

The member has to refuse to start, with exit status 4, or to serve everything as before; never silently less. One that
refuses, or whose damage `holdfast doctor` sees, is replaced as the documentation says: it is removed, its volume is
emptied, and a new member takes its place as a learner that is promoted.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from google.protobuf.message import Message
from holdfast import client
from holdfast.proto import rpc_pb2
from holdfast.storage.damage import EXIT_CODE
from holdfast.storage.doctor import examine
from holdfast.storage.identity import DataDirectoryError

from holdfast_lab.crash.cluster import CrashCluster
from holdfast_lab.sim.violation import Violation

KINDS = ("missing", "empty", "truncated", "zeroed", "part zeroed", "flipped", "overwritten")
UNREAD = ("LOCK", "LOG", "LOG.old", "spare")  # their content does not matter
UNKNOWN_FORMAT = 1  # exit status: a damaged FORMAT can look like that of a later version
GIVE_UP_SECONDS = 60.0


def files_of(place: Path) -> list[Path]:
    """The files of a data directory that are worth damaging."""
    return sorted(f for f in place.rglob("*") if f.is_file() and not f.name.startswith(UNREAD))


def damage_file(file: Path, kind: str, chance: Random) -> None:
    """Do one of KINDS at a random place in the used part of the file (most of a log segment is zeros)."""
    data = bytearray(file.read_bytes())
    used = len(data.rstrip(b"\0")) or len(data)
    start = chance.randrange(used) if used else 0
    if kind == "missing":
        file.unlink()
        return
    if kind == "truncated":
        del data[start:]
    elif kind == "empty":
        data.clear()
    elif kind == "zeroed":
        data[:] = bytes(len(data))
    elif kind == "part zeroed":
        end = min(len(data), start + chance.choice((1, 8, 512, 4096)))
        data[start:end] = bytes(end - start)
    elif kind == "overwritten":
        end = min(len(data), start + chance.choice((1, 16, 512)))
        data[start:end] = chance.randbytes(end - start)
    elif data:
        data[start] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


class Damaged:
    """One member of `cluster`, from the damage to its recovery."""

    def __init__(self, cluster: CrashCluster, name: str, chance: Random) -> None:
        self._cluster = cluster
        self._name = name
        self._chance = chance
        self._case = ""

    async def run(self) -> str:
        """Returns the outcome, for the report. Raises Violation."""
        cluster, name, chance = self._cluster, self._name, self._chance
        if chance.random() < 0.5:
            cluster.kill(name)
        else:
            await asyncio.get_running_loop().run_in_executor(None, cluster.processes[name].stop)
        file = chance.choice(files_of(cluster.data(name)))
        kind = chance.choice(KINDS)
        self._case = f"{name}, {file.relative_to(cluster.data(name))} {kind}"
        damage_file(file, kind, chance)
        seen = await asyncio.get_running_loop().run_in_executor(None, self._doctor)
        cluster.start_one(name)
        if await self._serves():
            if not seen:
                return "damage that was harmless"
            # It has not read the damaged part yet; meanwhile each answer must be correct, or an error.
            await asyncio.sleep(chance.random())
            status = self._ended()
            if status not in (None, EXIT_CODE):
                raise Violation("damage", f"{self._case}: ended with status {status}\n{self._tail()}")
        elif chance.random() < 0.3:
            cluster.start_one(name)
            if await self._serves():
                raise Violation("damage", f"{self._case}: refused once, and started then\n{self._tail()}")
        cluster.kill(name)
        await self._replace()
        return "damage that cost the identity"

    def _doctor(self) -> bool:
        """Whether `holdfast doctor` finds damage. Changes nothing."""
        try:
            return not examine(self._cluster.data(self._name)).safe
        except DataDirectoryError:
            return True

    def _ended(self) -> int | None:
        running = self._cluster.processes[self._name].running
        return None if running is None else running.poll()

    def _tail(self) -> str:
        return self._cluster.processes[self._name].tail(4)

    async def _serves(self) -> bool:
        """Wait until it answers a linearizable read (True) or has refused (False). Raises Violation otherwise."""
        end = time.monotonic() + GIVE_UP_SECONDS
        async with client.connect(self._cluster.processes[self._name].endpoint, timeout=1.0) as hf:
            while time.monotonic() < end:
                try:
                    await hf.get("ready?")
                    return True
                except client.ClientError:
                    status = self._ended()
                if status is None:
                    continue
                if status == EXIT_CODE or (status == UNKNOWN_FORMAT and "FORMAT" in self._case):
                    if str(self._cluster.data(self._name)) not in self._tail():
                        raise Violation("damage", f"{self._case}: it does not say what is damaged\n{self._tail()}")
                    return False
                raise Violation("damage", f"{self._case}: ended with status {status}\n{self._tail()}")
        raise Violation("L1", f"{self._case}: neither serves nor refuses within {GIVE_UP_SECONDS:g} s")

    # ---- recovery ------------------------------------------------------------------------------------------

    async def _replace(self) -> None:
        cluster, name = self._cluster, self._name
        old, url = cluster.ids[name], cluster.peer_url(name)
        async with client.connect([e for n, e in cluster.endpoint_of.items() if n != name], timeout=5.0) as hf:
            await self._change(
                hf,
                "MemberRemove",
                rpc_pb2.MemberRemoveRequest(ID=old),
                lambda members: old not in members,
            )
            await asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, cluster.data(name))
            add = rpc_pb2.MemberAddRequest(peerURLs=[url], isLearner=True)
            members = await self._change(
                hf, "MemberAdd", add, lambda members: any(url in m.peerURLs for m in members.values())
            )
            new = next(m.ID for m in members.values() if url in m.peerURLs)
            cluster.replace(name, new)
            cluster.start_one(name)
            promote = rpc_pb2.MemberPromoteRequest(ID=new)
            await self._change(
                hf, "MemberPromote", promote, lambda members: new in members and not members[new].isLearner
            )

    async def _change(
        self, hf: client.Client, method: str, request: Message, done: Callable[[dict[int, rpc_pb2.Member]], bool]
    ) -> dict[int, rpc_pb2.Member]:
        """Retry until accepted: a promotion is refused until the learner is in sync. Returns the new members."""
        end = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                members = await self._members(hf)
                if done(members):
                    return members
                await hf.connection.call(
                    f"/etcdserverpb.Cluster/{method}", request, rpc_pb2.MemberListResponse, idempotent=False
                )
            except client.ClientError as error:
                if time.monotonic() > end:
                    raise Violation("damage", f"{self._case}: the way back ends at {method}: {error}") from error
                await asyncio.sleep(0.05)

    @staticmethod
    async def _members(hf: client.Client) -> dict[int, rpc_pb2.Member]:
        answer = await hf.connection.call(
            "/etcdserverpb.Cluster/MemberList",
            rpc_pb2.MemberListRequest(linearizable=True),
            rpc_pb2.MemberListResponse,
            idempotent=True,
        )
        return {member.ID: member for member in answer.members}
