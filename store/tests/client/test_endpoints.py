"""The TLS scheme of an endpoint is followed or refused, never ignored; proxies of the environment are not used."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from holdfast import client
from holdfast.client.endpoints import parse
from holdfast_lab.processes import LocalCluster

from ..certificates import Authority

TLS = client.Tls(Path("ca"))


@pytest.mark.parametrize(
    ("endpoints", "tls", "addresses", "with_tls"),
    [
        ("a:1,b:2", None, ["a:1", "b:2"], False),
        (["a:1", " b:2 "], TLS, ["a:1", "b:2"], True),
        ("http://a:1/", None, ["a:1"], False),
        ("https://a:1", TLS, ["a:1"], True),
        ("https://[::1]:2379", TLS, ["[::1]:2379"], True),
        ("https://a:1,b:2", TLS, ["a:1", "b:2"], True),
        ("http://a:1,b:2", None, ["a:1", "b:2"], False),
    ],
)
def test_what_is_taken(
    endpoints: str | list[str], tls: client.Tls | None, addresses: list[str], with_tls: bool
) -> None:
    found, spoken = parse(endpoints, tls)
    assert found == addresses
    assert (spoken is not None) == with_tls


@pytest.mark.parametrize(
    ("endpoints", "tls", "words"),
    [
        ("unix:///run/x.sock", None, "unix sockets are not supported"),
        ("unix://a:1", None, "unix sockets are not supported"),
        ("ftp://a:1", None, "unknown"),
        ("HTTPS://a:1", None, "unknown"),
        ("://a:1", None, "unknown"),
        ("http://a:1,https://b:1", None, "some endpoints are http://"),
        ("http://a:1", TLS, "without TLS"),
        *(
            (wrong, None, "HOST:PORT")
            for wrong in (
                "",
                ",",
                "a",
                ":1",
                "a:",
                "a:x",
                "a:0",
                "a:65536",
                "a:1/x",
                "u:p@a:1",
                "::1:2379",
                "a b:1",
                "a:\u0661",
            )
        ),
    ],
)
def test_what_is_refused(endpoints: str, tls: client.Tls | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(endpoints, tls)


def test_a_directory_of_certificates_is_for_endpoints_that_do_not_say_http(tmp_path: Path) -> None:
    assert parse("http://a:1", None, str(tmp_path))[1] is None
    for endpoint in ("a:1", "https://a:1"):
        tls = parse(endpoint, None, str(tmp_path))[1]
        assert tls is not None
        assert tls.ca == tmp_path / "ca.crt"


def test_https_without_a_ca_trusts_what_the_system_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert parse("https://a:1", None) == (["a:1"], client.Tls(bundle))


def test_a_wrong_path_to_trusted_cas_does_not_mean_to_trust_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ValueError, match=r"SSL_CERT_FILE names .*none\.pem, which is no file"):
        parse("https://a:1", None)


@pytest_asyncio.fixture
async def plain_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that writes down what it is sent."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            heard.append(data)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heard
    server.close()


async def test_https_to_a_server_without_tls_says_nothing_in_clear(
    plain_server: tuple[int, list[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, heard = plain_server
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Authority("ca").certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    async with client.connect(f"https://127.0.0.1:{port}", timeout=1.0, user="u", password="secret") as hf:
        with pytest.raises(client.Unavailable, match="serve TLS"):
            await hf.get("a")
    assert heard  # it was tried
    for data in heard:
        assert data[:1] == b"\x16"  # a TLS handshake
        assert b"HTTP/2" not in data
        assert b"secret" not in data


@pytest.mark.integration
async def test_the_command_line_without_plaintext_and_proxies(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1)
    local.start()
    try:
        await local.wait_ready()
        (server,) = local.voters.values()

        def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "holdfast", *arguments]
            return subprocess.run(
                command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False
            )

        nowhere = "http://127.0.0.1:9"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "ALL_PROXY"), nowhere)
        done = run("put", "a", "1", f"--endpoints=http://{server.endpoint}", **proxies, no_proxy="", NO_PROXY="")
        assert done.returncode == 0, done.stderr
        done = run("put", "a", "2", f"--endpoints=https://{server.endpoint}", "--timeout=2")
        assert done.returncode == 3
        assert "it does not serve TLS there" in done.stderr
        done = run("get", "a", f"--endpoints={server.endpoint}", "-o", "simple")
        assert done.stdout == "a\n1\n"
        for endpoints, words in (("unix://x", "unix sockets"), ("ftp://x:1", "unknown")):
            done = run("get", "a", f"--endpoints={endpoints}")
            assert done.returncode == 1
            assert words in done.stderr
        done = run("edge", "--prefix=/", f"--data-dir={tmp_path / 'edge'}", "--endpoints=unix://x")
        assert done.returncode == 1
        assert "unix sockets" in done.stderr
    finally:
        local.kill()
