"""h2spec, others' tests of RFC 9113 and RFC 7541, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from holdfast_lab.processes import LocalCluster, Process

from ..certificates import Authority
from ..tools import tool

# What h2spec takes for a failure and is none: (section, description) and the reason.
ARTEFACTS = {
    ("3.5", "Sends invalid connection preface"): (
        "without TLS the port also speaks HTTP/1.1, so that what is no preface is a bad HTTP/1.1 request, and is "
        "answered as one (400) before the connection is closed; h2spec cannot read the answer"
    ),
}


def failures(process: Process, directory: Path, *flags: str) -> set[tuple[str, str]]:
    """The cases that fail, as (section, description). /version is a page with a body, which several cases need."""
    report = directory / "report.xml"
    command = [tool("h2spec"), "--port", str(process.port), "--path", "/version", "--timeout", "5", *flags]
    done = subprocess.run(
        [*command, "--junit-report", str(report)], check=False, capture_output=True, text=True, timeout=240
    )
    assert report.exists(), done.stdout + done.stderr
    cases = ElementTree.parse(report).findall(".//testcase")
    assert len(cases) > 140
    failed = {case for case in cases if case.find("failure") is not None or case.find("error") is not None}
    if failed:
        print(done.stdout)
    return {(case.get("package", "").removeprefix("http2/"), case.get("classname", "")) for case in failed}


async def _listens(process: Process) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", process.port)
                writer.close()
                return
            await asyncio.sleep(0.05)


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_without_tls(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path, voters=1)
    (process,) = local.voters.values()
    local.start()
    try:
        await local.wait_ready()
        assert failures(process, tmp_path) <= set(ARTEFACTS)
    finally:
        local.kill()


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_with_tls(tmp_path: Path) -> None:
    Authority("one").write_server(tmp_path)
    files = [f"--cert-file={tmp_path}/tls.crt", f"--key-file={tmp_path}/tls.key"]
    local = LocalCluster(tmp_path / "c", voters=1, extra=files)
    (process,) = local.voters.values()
    process.arguments = [
        a.replace("--listen-client-urls=http:", "--listen-client-urls=https:") for a in process.arguments
    ]
    local.start()
    try:
        await _listens(process)
        assert failures(process, tmp_path, "--tls", "--insecure") <= set(ARTEFACTS)
    finally:
        local.kill()
        print(process.tail(20))
