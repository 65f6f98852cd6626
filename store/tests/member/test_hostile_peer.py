"""Non-members on the peer port, and members that send malformed messages: to real nodes, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from holdfast.member.frames import frame, read_frame
from holdfast.proto import raft_pb2, rpc_pb2

from .nodes import Nodes, cluster

PM = raft_pb2.PeerMessage
STRANGER = 0x99


async def come(nodes: Nodes, to: str, hello: raft_pb2.Hello) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """Returns why the Hello is refused, and the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.ports[to])
    writer.write(frame(hello))
    async with asyncio.timeout(10):
        answer = raft_pb2.Hello.FromString(await read_frame(reader))
    return answer.refused, reader, writer


def hello_of(nodes: Nodes, frm: str, to: str, **others: int) -> raft_pb2.Hello:
    hello = nodes.nodes[frm].hello(nodes.id(to), "messages")
    for name, value in others.items():
        setattr(hello, name, value)
    return hello


async def test_who_is_not_a_member_is_not_welcome(tmp_path: Path) -> None:
    async with cluster(tmp_path, election_ms=1500) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower = nodes.others(leader)[0]
        await nodes.put_everywhere(b"before")
        me = nodes.id(leader)
        for fields, why in (
            ({"from_id": STRANGER, "volume_id": STRANGER}, "99 is not a member of this cluster"),
            ({"from_id": me, "volume_id": me}, "is this one"),
            ({"from_id": 0}, "is this one, or nobody"),
            ({"volume_id": 3}, "lives on the volume"),
            ({"cluster_id": 5}, "belongs to cluster"),
            ({"to_id": 5}, "this is member"),
            ({"protocol": 7}, "peer protocol 7"),
        ):
            refused, _, writer = await come(nodes, leader, hello_of(nodes, follower, leader, **fields))
            writer.close()
            assert why in refused


async def test_a_frame_that_cannot_be_taken_ends_its_connection_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster(tmp_path, election_ms=1500) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower = nodes.others(leader)[0]
        # One side is stopped, so that what is sent by hand is not cut off by its own connections.
        await nodes.nodes.pop(follower).stop(0.0)
        stopped = await nodes.start_one(follower)
        await nodes.until(lambda: stopped.member is not None)
        await nodes.until(lambda: nodes.leader not in (None, follower))
        stopped.transport.set_peers({})
        leader = nodes.leader
        assert leader is not None
        (witness,) = nodes.others(leader, follower)
        member = nodes.nodes[leader].member
        assert member is not None
        term = member.core.term
        origin = nodes.id(follower)

        def forward(data: bytes) -> bytes:
            return frame(raft_pb2.PeerFrame(messages=[PM(term=term, forward=raft_pb2.Forward(commands=[data]))]))

        future = raft_pb2.Command(format=99, origin=origin, incarnation=1, seq=1, put=rpc_pb2.PutRequest(key=b"a"))
        nothing = raft_pb2.Command(format=1, origin=origin, incarnation=1, seq=1)
        beat = PM(term=2**64 - 1, heartbeat=raft_pb2.Heartbeat(round=1))
        conf = raft_pb2.Entry(index=9, term=1, conf=raft_pb2.ConfState(voters=[3, 2]))
        append = PM(term=term, append=raft_pb2.Append(entries=[conf]))
        for data, why in (
            (b"\0\0\0\3\xff\xff\xff", "Error parsing message"),
            (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
            (forward(b"\xff\xff"), "not a command"),
            (forward(future.SerializeToString()), "format 99"),
            (forward(nothing.SerializeToString()), "without an operation"),
            (frame(raft_pb2.PeerFrame(messages=[beat])), "term 18446744073709551615"),
            (frame(raft_pb2.PeerFrame(messages=[append])), "not sorted"),
        ):
            nodes.nodes[leader].transport._seldom._said.clear()
            caplog.clear()
            refused, reader, writer = await come(nodes, leader, hello_of(nodes, follower, leader))
            assert not refused
            with caplog.at_level(logging.WARNING, "holdfast.peer"):
                writer.write(data)
                async with asyncio.timeout(10):
                    await reader.read()
            writer.close()
            lines = [r.getMessage() for r in caplog.records if "is ended" in r.getMessage()]
            assert len(lines) == 1
            assert why in lines[0]
            assert f"member {origin:x} at 127.0.0.1" in lines[0]
        await nodes.put_everywhere(b"after", [leader, witness])
        assert member.core.term < term + 1000
