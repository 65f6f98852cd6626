"""A peer that is silent while its connections stay open: cut networks, stopped processes, lost machines."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from holdfast.member.frames import PROTOCOL, frame, read_frame
from holdfast.member.inbound import MAX_UNKNOWN_OF_ONE_ADDRESS
from holdfast.proto import raft_pb2

from .nodes import Nodes, cluster

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def linked(nodes: Nodes, frm: str, to: str) -> bool:
    return nodes.nodes[frm].transport._links[nodes.id(to)].connected


async def has_applied(nodes: Nodes, name: str, key: bytes) -> None:
    member = nodes.nodes[name].member
    assert member is not None
    await nodes.until(lambda: member.core.machine.space.count(key, None) == 1)


async def greet(nodes: Nodes, frm: str, to: str, speaks: int = PROTOCOL) -> Pair:
    """A connection as `frm` makes one to `to`, by hand; its own links are given up."""
    nodes.nodes[frm].transport.set_peers({})
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.ports[to])
    hello = nodes.nodes[frm].hello(nodes.id(to), "messages")
    hello.speaks = speaks
    writer.write(frame(hello))
    answer = raft_pb2.Hello.FromString(await read_frame(reader))
    assert not answer.refused
    return reader, writer


@pytest.mark.parametrize("how", ["all", "forth", "back"])
async def test_a_link_that_was_cut_in_silence_is_made_anew(tmp_path: Path, how: str) -> None:
    async with cluster(tmp_path) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower, witness = nodes.others(leader)
        way = nodes.ways[follower]
        if how == "all":
            way.cut()
        else:
            way.drop(forth=how == "forth", back=how == "back")
        # These connections are never closed: the member has to notice that they are dead.
        await nodes.until(lambda: not linked(nodes, leader, follower) and not linked(nodes, witness, follower))
        way.heal()
        await nodes.until(lambda: linked(nodes, leader, follower) and linked(nodes, witness, follower), 3.0)
        await nodes.put_everywhere(b"after")


async def test_the_loss_of_a_silent_link_is_told_once(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower = nodes.others(leader)[0]
        told: list[int] = []
        nodes.nodes[leader].peer_lost = told.append  # type: ignore[method-assign, assignment]
        way = nodes.ways[follower]
        way.cut()
        await nodes.until(lambda: not linked(nodes, leader, follower))
        tries = way.accepted
        await nodes.until(lambda: way.accepted >= tries + 4)  # by two members: each has failed at least once
        assert told == [nodes.id(follower)]


async def test_a_connection_on_which_nothing_comes_in_is_ended(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower, witness = nodes.others(leader)
        reader, writer = await greet(nodes, follower, witness)
        async with asyncio.timeout(10):
            signs = await reader.read()  # until it is ended
        assert signs
        assert not signs.strip(b"\0")
        writer.close()


async def test_a_peer_of_the_protocol_before_gets_and_owes_no_signs_of_life(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower, witness = nodes.others(leader)
        old_reader, old_writer = await greet(nodes, follower, witness, speaks=0)
        reader, writer = await greet(nodes, leader, witness)
        async with asyncio.timeout(10):
            await reader.read()  # as long as a silent peer of today's protocol is let be
        assert not old_reader.at_eof()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await old_reader.read(1)
        old_writer.close()
        writer.close()


async def test_a_newer_connection_of_a_member_replaces_the_older_one(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        leader = nodes.leader
        assert leader is not None
        follower, witness = nodes.others(leader)
        old_reader, old_writer = await greet(nodes, follower, witness, speaks=0)
        _, writer = await greet(nodes, follower, witness, speaks=0)
        async with asyncio.timeout(5):
            assert await old_reader.read() == b""
        old_writer.close()
        writer.close()


async def test_connections_of_nobody_are_bounded_and_time_out(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        leader = nodes.leader
        assert leader is not None
        transport = nodes.nodes[leader].transport
        before = transport.inbound
        opened: list[Pair] = [
            await asyncio.open_connection("127.0.0.1", nodes.ports[leader])
            for _ in range(3 * MAX_UNKNOWN_OF_ONE_ADDRESS)
        ]
        await nodes.put_everywhere(b"meanwhile")
        assert transport.inbound <= before + MAX_UNKNOWN_OF_ONE_ADDRESS
        async with asyncio.timeout(10):
            for reader, _ in opened:
                assert await reader.read() == b""
        for _, writer in opened:
            writer.close()
        await nodes.put_everywhere(b"after")
