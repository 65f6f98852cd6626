"""A TCP proxy that delays what passes, each way: a member at a distance. `python far.py PORT TARGET_PORT MILLISECONDS`.

It is a process of its own, so that what it costs is not taken from the client that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Each piece is written `seconds` after it came, without holding up those that come meanwhile."""
    loop = asyncio.get_running_loop()
    passing: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)

    async def take() -> None:
        data = b"-"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            await passing.put((loop.time() + seconds, data))

    taking = asyncio.ensure_future(take())
    try:
        while True:
            at, data = await passing.get()
            await asyncio.sleep(at - loop.time())
            if not data:
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        return
    finally:
        taking.cancel()
        writer.close()


async def main() -> None:
    port, target, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, upstream = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, upstream, seconds), copy(answers, writer, seconds))

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    with contextlib.suppress(asyncio.CancelledError):
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
