"""A client that a changed CA excludes cannot come back by resuming a TLS session."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from holdfast.tls import TlsFiles, server_context

from .certificates import Authority


def _connect(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Say something and read the answer. Returns the session, to resume it."""
    with (
        socket.create_connection(("localhost", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
    ):
        secure.sendall(b"hello")
        if not secure.recv(16):
            raise ConnectionResetError("no answer")
        assert not secure.session_reused
        return secure.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_does_not_outlive_the_ca_that_vouched_for_it(tmp_path: Path, version: ssl.TLSVersion) -> None:
    first, second = Authority("first", bare=True), Authority("second", bare=True)
    first.write_server(tmp_path)
    files = TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(16))
        writer.close()

    server = await asyncio.start_server(echo, "localhost", 0, ssl=server_context(files))
    port = server.sockets[0].getsockname()[1]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    first.load_client(context, "ann", tmp_path)
    session = await asyncio.to_thread(_connect, port, context, None)
    (tmp_path / "ca.crt").write_bytes(second.certificate)
    await asyncio.sleep(1.1)  # files are looked at once a second at most
    for resumed in (session, None):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(_connect, port, context, resumed)
    server.close()
