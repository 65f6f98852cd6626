"""The load programs there are: of holdfast's client, of etcd's Go library, and of a Python library by others.

One that cannot run has a reason instead, which is printed where its figures would be.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from clients.protocol import Options, Recorded, recorded

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast"))
# etcd3, which is best known, is tried first, and its error is shown; etcd-sdk-python is its maintained fork. It does
# not say that it needs protobuf.
ETCD3 = ["etcd3==0.12.0"]
FORK = ["etcd-sdk-python==0.0.7", "grpcio", "protobuf"]
MORE_SECONDS = 60.0  # than a load lasts, until a program that says nothing is ended


class Failed(Exception):
    """A program did not do its work."""


@dataclass(frozen=True)
class Program:
    """`clients`: how many to make where holdfast has one. `reason`: why it cannot run."""

    name: str
    words: list[str]
    clients: int = 1
    reason: str = ""

    def start(self, options: Options) -> Running:
        return Running(self, options)


class Running:
    """A load program. It has connected when this is made. Raises Failed."""

    def __init__(self, program: Program, options: Options) -> None:
        self._program = program
        self._seconds = options.seconds + MORE_SECONDS
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the program runs
        self._process = subprocess.Popen(
            [*program.words, *options.words()], stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            self.stop()
            raise Failed(f"{program.name} did not connect: {self._said()}")

    def result(self) -> Recorded:
        try:
            text, _ = self._process.communicate(timeout=self._seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Failed(f"{self._program.name} did not end") from None
        if self._process.returncode:
            raise Failed(f"{self._program.name} ended with {self._process.returncode}: {self._said()}")
        return recorded(text)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().strip()[-300:]


def holdfast() -> Program:
    return Program("holdfast", [sys.executable, str(HERE / "holdfast_load.py")])


def go() -> Program:
    binary = CACHE / "bin" / "go-reads"
    reason = "" if binary.exists() else f"{binary} is missing: run `make tools`"
    return Program("etcd Go clientv3", [str(binary)], reason=reason)


def python_others() -> list[Program]:
    """Libraries from PyPI, each in an environment of its own in the cache, none in the project's lock file."""
    best_known = _imports("etcd3", ETCD3)
    reason = f"does not import: {best_known}" if best_known else "is importable, but there is no load program for it"
    words = [str(_python(FORK)), str(HERE / "pyetcd_load.py")]
    return [
        Program(ETCD3[0], [], reason=reason),
        Program(FORK[0], words, clients=12, reason=_imports("pyetcd", FORK)),
    ]


def _python(packages: list[str]) -> Path:
    return CACHE / f"python-{packages[0].replace('==', '-')}" / "bin" / "python"


def _imports(module: str, packages: list[str]) -> str:
    """Make the environment if there is none. Returns why the module cannot be imported there."""
    python = _python(packages)
    ready = python.parent.parent / ".done"
    try:
        if not ready.exists():
            subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True, capture_output=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
            ready.touch()
        subprocess.run([str(python), "-c", f"import {module}"], check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).strip().splitlines()
        return next((line for line in lines if "Error" in line), lines[-1] if lines else str(error))
    except subprocess.TimeoutExpired as error:
        return str(error)
    return ""
