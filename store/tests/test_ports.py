"""Which addresses a server listens on, and that each connection is handed over at once."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket

import pytest
from holdfast.ports import Acceptor, bind


def _put(into: asyncio.Queue[tuple[socket.socket, str]], sock: socket.socket, address: str) -> None:
    into.put_nowait((sock, address))


async def test_all_addresses_are_taken_and_connections_are_handed_over_before_they_send_anything() -> None:
    for host, clients in (("::", ["::1", "127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"]), ("::1", ["::1"])):
        accepted: asyncio.Queue[tuple[socket.socket, str]] = asyncio.Queue()
        acceptor = Acceptor(functools.partial(_put, accepted))
        acceptor.accept_from(await bind(host, 0, 16))
        for client in clients:
            with socket.create_connection((client, acceptor.ports[0])):
                sock, address = await asyncio.wait_for(accepted.get(), 10)
                assert address.removeprefix("::ffff:") == client
                sock.close()
        acceptor.close()


async def test_a_connection_that_arrives_at_the_end_is_not_an_error() -> None:
    """asyncio's own accept has taken the connection by then, and has nobody left to hand it to."""
    loop = asyncio.get_running_loop()
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    accepted: asyncio.Queue[tuple[socket.socket, str]] = asyncio.Queue()
    acceptor = Acceptor(functools.partial(_put, accepted))
    acceptor.accept_from(await bind("127.0.0.1", 0, 16))
    ended = asyncio.Event()
    ours, theirs = socket.socketpair()

    def end() -> None:
        loop.remove_reader(ours)
        acceptor.close()
        ended.set()

    loop.add_reader(ours, end)
    await asyncio.sleep(0)
    theirs.send(b"x")  # ready before the connection is, so `end` is called first, in the same turn of the loop
    with socket.create_connection(("127.0.0.1", acceptor.ports[0])):
        await ended.wait()
        await asyncio.sleep(0)
    assert errors == []
    assert accepted.empty()
    ours.close()
    theirs.close()


async def test_a_caller_that_fails_ends_no_listening() -> None:
    loop = asyncio.get_running_loop()
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    failed = asyncio.Event()

    def accepted(sock: socket.socket, _: str) -> None:
        sock.close()
        if not failed.is_set():
            failed.set()
            raise ValueError("a fault of the caller")
        again.set()

    again = asyncio.Event()
    acceptor = Acceptor(accepted)
    acceptor.accept_from(await bind("127.0.0.1", 0, 16))
    for event in (failed, again):
        with socket.create_connection(("127.0.0.1", acceptor.ports[0])):
            await asyncio.wait_for(event.wait(), 10)
    assert [str(context["exception"]) for context in errors] == ["a fault of the caller"]
    acceptor.close()


async def test_an_address_in_use_or_not_of_this_machine_is_refused_and_leaves_no_socket() -> None:
    (first,) = await bind("127.0.0.1", 0, 16)
    with pytest.raises(OSError, match=f"Errno {errno.EADDRINUSE}"):
        await bind("127.0.0.1", first.getsockname()[1], 16)
    first.close()
    with pytest.raises(OSError, match=f"Errno {errno.EADDRNOTAVAIL}"):
        await bind("192.0.2.1", 0, 16)  # a documentation address


async def test_a_family_that_the_machine_does_not_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0)),  # no such address here
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]

    async def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return list(both)

    monkeypatch.setattr(loop, "getaddrinfo", found)
    (sock,) = await bind("localhost", 0, 16)
    assert sock.getsockname()[0] == "127.0.0.1"
    sock.close()


async def test_where_there_is_no_ipv6_all_addresses_are_those_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    make = socket.socket

    def without_ipv6(family: int, *rest: int) -> socket.socket:  # as under the kernel's ipv6.disable=1
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *rest)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    (sock,) = await bind("::", 0, 16)
    assert sock.getsockname()[0] == "0.0.0.0"
    sock.close()
    with pytest.raises(OSError, match=f"Errno {errno.EAFNOSUPPORT}"):
        await bind("::1", 0, 16)
