"""Keepalive: detects a peer that is silent, and sends empty frames so that this side is not.

TCP alone detects it too late. When a machine died, a process is stopped or a network drops packets, the connection
stays open for minutes, and when the network is back TCP waits as long again before it sends. So each side sends an
empty frame when it has nothing else to send, and ends a connection on which nothing arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from holdfast.member.frames import IDLE

BEATS = 8  # without anything received, until the connection is ended


class Pulse:
    """The keepalive of one connection. Call `heard` for what arrives, `sent` for what is sent, `stop` at the end.

    It counts its own beats, not seconds, so that a process that was itself delayed reads what has arrived meanwhile
    before it considers the peer silent.
    """

    def __init__(self, writer: asyncio.StreamWriter, silence_seconds: float) -> None:
        self._writer = writer
        self._seconds = silence_seconds / BEATS
        self._missed = 0
        self._sent = False
        self.silent = False
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._beat)

    def heard(self) -> None:
        self._missed = 0

    def sent(self) -> None:
        self._sent = True

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        if self._writer.is_closing():
            return
        self._missed += 1
        if self._missed > BEATS:
            self.silent = True
            self._writer.transport.abort()
            return
        if not self._sent:
            self._writer.write(IDLE)
        self._sent = False
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._beat)


def notice_silence(writer: asyncio.StreamWriter, seconds: float) -> None:
    """Have the kernel end a connection whose peer acknowledges nothing: the only detection for a peer of protocol 1."""
    sock = writer.get_extra_info("socket")
    options = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(1, round(seconds))),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000)),
    )
    with contextlib.suppress(OSError):  # the connection has ended already
        for option in options:
            sock.setsockopt(*option)
