"""Authentication by a signed token or a certificate, against real servers."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from holdfast_lab.processes import LocalCluster

from ..certificates import Authority
from .test_etcdctl import Ctl


async def test_signed_tokens_are_known_to_all_members(etcdctl: str, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    file = tmp_path / "private.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    local = LocalCluster(
        tmp_path / "c", extra=[f"--auth-token=jwt,sign-method=RS256,priv-key={file}", "--bcrypt-cost=4"]
    )
    local.start()
    try:
        await local.wait_ready()
        ctl = Ctl(etcdctl, local.endpoints)
        for words in ("user add root:s", "user grant-role root root", "auth enable"):
            ctl(*words.split())
        for endpoint in local.endpoints:
            assert ctl("put", "k", "v", "--user=root:s", at=endpoint) == "OK\n"
        assert "user name is empty" in ctl("get", "k", fails=True)
    finally:
        local.kill()


@pytest.mark.timeout(120)
async def test_a_certificate_says_who_calls(etcdctl: str, tmp_path: Path) -> None:
    authority = Authority("one")
    authority.write_server(tmp_path)
    flags = [
        f"--cert-file={tmp_path}/tls.crt",
        f"--key-file={tmp_path}/tls.key",
        f"--trusted-ca-file={tmp_path}/ca.crt",
        "--client-cert-auth",
        "--bcrypt-cost=4",
    ]
    local = LocalCluster(tmp_path / "c", voters=1, extra=flags)
    (process,) = local.voters.values()
    process.arguments = [
        a.replace("--listen-client-urls=http:", "--listen-client-urls=https:") for a in process.arguments
    ]
    local.start()
    try:

        def ctl(name: str, *words: str) -> str:
            """As the user whose certificate is shown."""
            key, certificate = authority.client(name)
            (tmp_path / "key.pem").write_bytes(key)
            (tmp_path / "cert.pem").write_bytes(certificate)
            tls = [f"--cacert={tmp_path}/ca.crt", f"--cert={tmp_path}/cert.pem", f"--key={tmp_path}/key.pem"]
            endpoint = f"https://127.0.0.1:{process.port}"
            done = subprocess.run(
                [etcdctl, f"--endpoints={endpoint}", *tls, *words],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            return done.stdout + done.stderr

        for _ in range(100):
            if ctl("root", "put", "/ann/1", "x") == "OK\n":
                break
            await asyncio.sleep(0.1)
        for words in ("user add root:s", "user grant-role root root", "user add ann --no-password", "role add r"):
            ctl("root", *words.split())
        ctl("root", "role", "grant-permission", "r", "readwrite", "/ann/", "--prefix")
        ctl("root", "user", "grant-role", "ann", "r")
        assert "Authentication Enabled" in ctl("root", "auth", "enable")
        assert ctl("ann", "get", "/ann/1") == "/ann/1\nx\n"
        assert "permission denied" in ctl("ann", "get", "/bob/1")
        assert "permission denied" in ctl("ann", "user", "list")
        assert "permission denied" in ctl("nobody", "get", "/ann/1")
        assert ctl("root", "user", "list").split() == ["ann", "root"]
    finally:
        local.kill()
