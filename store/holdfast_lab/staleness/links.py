"""The connections of replicas to those above them: each can be cut, be silent for a while, or be slow."""

from __future__ import annotations

import asyncio
import contextlib

from holdfast_lab.demo import Relay


class Link(Relay):
    """Forwards the connections to one target. `seconds`: so long every piece is under way in addition."""

    def __init__(self, target: str) -> None:
        super().__init__([target])
        self.seconds = 0.0
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stall(self) -> None:
        """Stop the traffic without closing a connection, as if packets were dropped."""
        self._flows.clear()

    def heal(self) -> None:
        super().heal()
        self.seconds = 0.0
        self._flows.set()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.seconds:
                    await asyncio.sleep(self.seconds)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
        self._connections.discard(writer)
