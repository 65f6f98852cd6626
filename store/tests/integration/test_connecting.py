"""Whoever cannot connect is told the cause, by real servers with and without TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from holdfast import client
from holdfast_lab.processes import LocalCluster, free_ports

from ..certificates import Authority


async def why(endpoint: str, tls: client.Tls | None = None) -> str:
    async with client.connect(endpoint, timeout=1.0, tls=tls) as hf:
        with pytest.raises(client.Unavailable) as error:
            await hf.get("/a")
    assert error.value.known is None
    assert endpoint in str(error.value)
    return str(error.value)


def made(directory: Path, authority: Authority, name: str = "") -> client.Tls:
    directory.mkdir()
    (directory / "ca.crt").write_bytes(authority.certificate)
    if name:
        key, certificate = authority.client(name)
        (directory / "tls.key").write_bytes(key)
        (directory / "tls.crt").write_bytes(certificate)
    return client.Tls.from_directory(directory)


async def test_nobody_is_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    for tls in (None, made(tmp_path / "tls", Authority("one"))):
        told = await why(f"127.0.0.1:{port}", tls)
        assert told.endswith(f"cannot connect to 127.0.0.1:{port}: connection refused: is it running?")


async def test_it_speaks_something_else(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.example ESMTP\r\n" * 9)
        await writer.drain()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as mail:
        endpoint = f"127.0.0.1:{mail.sockets[0].getsockname()[1]}"
        assert "it does not speak gRPC there" in await why(endpoint)
        assert "it does not serve TLS there" in await why(endpoint, made(tmp_path / "tls", Authority("one")))


async def test_the_server_has_no_tls(server: LocalCluster, tmp_path: Path) -> None:
    assert "it does not serve TLS there" in await why(server.endpoints[0], made(tmp_path / "tls", Authority("one")))


async def test_the_server_has_tls(tmp_path: Path) -> None:
    authority = Authority("one")
    authority.write_server(tmp_path)
    tls = [f"--{what}={tmp_path}/{file}" for what, file in (("cert-file", "tls.crt"), ("key-file", "tls.key"))]
    verify = [f"--trusted-ca-file={tmp_path}/ca.crt", "--client-cert-auth"]
    local = LocalCluster(tmp_path / "c", voters=1, extra=[*tls, *verify])
    (process,) = local.voters.values()
    process.arguments = [a.replace("client-urls=http:", "client-urls=https:") for a in process.arguments]
    (endpoint,) = local.endpoints
    local.start()
    good = made(tmp_path / "good", authority, "app")
    try:
        async with client.connect(endpoint, timeout=60, tls=good) as hf:
            await hf.put("/a", "1")
        assert "it ended the connection: does it serve TLS only?" in await why(endpoint)
        assert "does it serve TLS, and want a certificate of yours?" in await why(
            endpoint, made(tmp_path / "1", authority)
        )
        told = await why(endpoint, made(tmp_path / "2", Authority("two")))
        assert "its certificate was not issued by this CA" in told
        named = client.Tls(good.ca, good.certificate, good.key, "db.example")
        assert "its certificate is for another name" in await why(endpoint, named)
    finally:
        local.kill()
        print(local.logs())
