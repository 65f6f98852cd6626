"""After a power cut everything that was synced is there, and any part of the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from holdfast_lab.crash.powercut import PowerCut

PROGRAM = """
import os
fd = os.open("log", os.O_RDWR | os.O_CREAT, 0o600)
os.pwrite(fd, b"synced", 0)
os.fsync(fd)
os.pwrite(fd, b"LOST and longer", 2)
fresh = open("fresh", "wb")
fresh.write(b"never synced")
fresh.flush()
with open("pointer.new", "wb") as file:
    file.write(b"new")
    file.flush()
    os.fsync(file.fileno())
os.rename("pointer.new", "pointer")
here = os.open(".", os.O_RDONLY)
if {sync}:
    os.fsync(here)
os.unlink("old")
short = os.open("short", os.O_RDWR)
os.ftruncate(short, 1)
"""


@pytest.fixture
def power(tmp_path: Path) -> PowerCut:
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler: the crash tester says so, too, and then cuts no power")
    return PowerCut(tmp_path / "power", _Everything())


class _Everything(Random):
    """A disk that loses everything it may lose."""

    def random(self) -> float:
        return 0.0


def _run(power: PowerCut, place: Path, sync: bool) -> dict[str, bytes]:
    environment = power.environment("m", place)
    power.begin("m")
    for name, content in (("pointer", b"old"), ("old", b"kept"), ("short", b"long")):
        (place / name).write_bytes(content)
    words = [sys.executable, "-c", PROGRAM.format(sync=sync)]
    subprocess.run(words, cwd=place, env={**os.environ, **environment}, check=True)
    assert (place / "log").read_bytes() == b"syLOST and longer"
    assert power.lose_unsynced("m") > 0
    return {file.name: file.read_bytes() for file in place.iterdir()}


def test_what_was_synced_stays_and_what_was_not_goes(power: PowerCut, tmp_path: Path) -> None:
    left = _run(power, tmp_path / "data", sync=False)
    assert left == {"log": b"synced", "pointer": b"old", "pointer.new": b"new", "old": b"kept", "short": b"long"}


def test_a_synced_directory_keeps_its_names(power: PowerCut, tmp_path: Path) -> None:
    left = _run(power, tmp_path / "data", sync=True)
    assert left == {"log": b"synced", "fresh": b"", "pointer": b"new", "old": b"kept", "short": b"long"}


def test_part_of_it_may_be_on_the_disk(power: PowerCut, tmp_path: Path) -> None:
    """With a disk that tosses a coin for every write, something of each is seen sooner or later."""
    program = "import os; fd = os.open('f', os.O_RDWR); [os.pwrite(fd, b'x', n) for n in range(16)]"
    seen = set()
    for seed in range(20):
        place = tmp_path / f"d{seed}"
        coin = PowerCut(tmp_path / f"power{seed}", Random(seed))
        environment = coin.environment("m", place)
        (place / "f").write_bytes(b"." * 16)
        subprocess.run([sys.executable, "-c", program], cwd=place, env={**os.environ, **environment}, check=True)
        coin.lose_unsynced("m")
        seen.add((place / "f").read_bytes())
    assert b"." * 16 in seen
    assert any(b"x" in content and b"." in content for content in seen)
