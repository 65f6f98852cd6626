"""The network between members: every peer connection goes through these proxies and can be cut in each direction.

The first frame of a connection names both sides, so one listener for each member is enough.
"""

from __future__ import annotations

import asyncio
import contextlib

from holdfast.proto import raft_pb2


class PeerProxy:
    """Stands in for one member's peer port. `links` are pairs of names (from, to) whose traffic is stopped."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, int] = {}  # the dialler's side -> its member id
        self._stopped: set[int] = set()
        self._refusing: set[int] = set()
        self._may_flow = asyncio.Event()
        self._may_flow.set()

    async def listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)

    def stall(self, members: set[int]) -> None:
        """Stop the traffic from these members without closing a connection, as if packets were dropped."""
        self._stopped = members
        if members:
            self._may_flow.clear()
        else:
            self._may_flow.set()

    def refuse(self, members: set[int]) -> None:
        """Reset the connections of these members, and every new one."""
        self._refusing = members
        for writer, member in list(self._open.items()):
            if member in members:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        back: asyncio.Task[None] | None = None
        try:
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size, "big"))
            member = _dialler(body)
            self._open[writer] = member
            if member in self._refusing:
                return
            answers, upstream = await asyncio.open_connection(*self._target)
            back = asyncio.ensure_future(self._copy(answers, writer, member))
            upstream.write(size + body)
            await self._copy(reader, upstream, member)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side closed it, so the other side is closed, too
        finally:
            self._open.pop(writer, None)
            if back is not None:
                back.cancel()
            for side in (writer, upstream):
                if side is not None:
                    side.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, member: int) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                while member in self._stopped:
                    await self._may_flow.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.close()


def _dialler(body: bytes) -> int:
    """The member that dials. The first frame is a Hello, or part of a founding, before which there are no members."""
    try:
        return raft_pb2.Hello.FromString(body).from_id
    except ValueError:
        return 0
