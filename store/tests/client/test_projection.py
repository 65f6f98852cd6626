"""Keys as files: a whole state or the one before, whenever the writer is killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from holdfast import client
from holdfast.client.projection import Projection, Unfit, names
from holdfast_lab.processes import LocalCluster

FILES = 6


def shown(directory: Path) -> dict[str, bytes]:
    """What a program sees by the visible names."""
    found = {}
    for place, directories, files in os.walk(directory, followlinks=True):
        directories[:] = [name for name in directories if not name.startswith("..")]
        for path in (Path(place) / name for name in files if not name.startswith("..")):
            found[str(path.relative_to(directory))] = path.read_bytes()
    return found


def read_at_once(directory: Path) -> dict[str, bytes]:
    """As a program that wants one state: it resolves `..data` once. If that has changed when it is done, its state may
    have been removed meanwhile, where changes come within milliseconds: then again."""
    while True:
        state = (directory / "..data").resolve()
        try:
            found = {path.name: path.read_bytes() for path in state.iterdir()}
        except FileNotFoundError:
            continue
        if (directory / "..data").resolve() == state:
            return found


def test_states_follow_one_another(tmp_path: Path) -> None:
    made = Projection(tmp_path / "d", b"/app/", 0o640)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "other").write_text("of somebody else")
    before = os.umask(0o077)
    try:
        assert made.write({b"/app/a": b"1", b"/app/sub/b": b"2", b"/app/sub/c/d": b"3"})
    finally:
        os.umask(before)
    assert (tmp_path / "d" / "sub").stat().st_mode & 0o777 == 0o755, "others have to get into directories"
    assert shown(tmp_path / "d") == {"other": b"of somebody else", "a": b"1", "sub/b": b"2", "sub/c/d": b"3"}
    assert (tmp_path / "d" / "a").stat().st_mode & 0o777 == 0o640
    assert not made.write({b"/app/a": b"1", b"/app/sub/b": b"2", b"/app/sub/c/d": b"3"})
    assert made.write({b"/app/a": b"1", b"/app/e": b""})
    assert shown(tmp_path / "d") == {"other": b"of somebody else", "a": b"1", "e": b""}
    assert made.write({})
    assert shown(tmp_path / "d") == {"other": b"of somebody else"}
    assert len([p for p in (tmp_path / "d").iterdir() if p.name.startswith("..state-")]) == 2, (
        "the newest, and the one before"
    )
    with pytest.raises(Unfit, match="use another directory"):
        made.write({b"/app/other": b"x"})


@pytest.mark.parametrize("key", [b"/app/", b"/app/..", b"/app/a/../b", b"/app/..data", b"/app/a//b", b"/app/a\0b"])
def test_keys_that_are_no_names_are_refused_and_the_files_stay(tmp_path: Path, key: bytes) -> None:
    made = Projection(tmp_path, b"/app/")
    made.write({b"/app/a": b"1"})
    with pytest.raises(Unfit, match="cannot be a file"):
        made.write({b"/app/a": b"2", key: b"x"})
    assert shown(tmp_path) == {"a": b"1"}


def test_a_key_cannot_be_a_file_and_a_directory() -> None:
    with pytest.raises(Unfit, match="is one, and no directory"):
        names([b"/a", b"/a/b"], b"/")


WRITER = f"""
import sys
from pathlib import Path
from holdfast.client.projection import Projection
made = Projection(Path(sys.argv[1]), b"/")
number = int(sys.argv[2])
while True:
    number += 1
    keep = {FILES} - number % 2
    made.write({{b"/f%d" % n: b"%d" % number for n in range(keep)}})
    print(number, flush=True)
"""


@pytest.mark.integration
def test_no_reader_sees_a_mix_while_the_writer_is_killed_again_and_again(tmp_path: Path) -> None:
    chance, number, swaps = random.Random(1), 0, 0
    for _ in range(25):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = int(writer.stdout.readline())
            until = time.monotonic() + chance.uniform(0.0, 0.3)
            while time.monotonic() < until:
                state = read_at_once(tmp_path)
                assert len(set(state.values())) == 1, state
                assert len(state) == FILES - int(state["f0"]) % 2, "one of another state, or one is missing"
            writer.kill()
            rest = writer.stdout.read().split()
        number = int(rest[-1]) if rest else first
        swaps += number - first + 1
        state = read_at_once(tmp_path)
        assert len(set(state.values())) == 1
        Projection(tmp_path, b"/").write({b"/f%d" % n: b"%d" % number for n in range(FILES)})
        assert shown(tmp_path) == {f"f{n}": b"%d" % number for n in range(FILES)}, "what was killed is put right"
    print(f"   {swaps} swaps, 25 times killed")


@pytest.mark.integration
async def test_the_command_writes_tells_and_starts_from_the_last_good_file(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    target, last_good, told = tmp_path / "d", tmp_path / "kept", tmp_path / "told"

    def start(*more: str) -> subprocess.Popen[bytes]:
        tell = f"--exec={sys.executable} -c \"open('{told}','a').write('x')\""
        words = ["project", "/app/", str(target), f"--last-good={last_good}", tell, f"--endpoints={local.endpoints[0]}"]
        command = [sys.executable, "-m", "holdfast", *words, *more]
        with (tmp_path / "said").open("w") as said:
            return subprocess.Popen(command, stderr=said)

    def said() -> str:
        return (tmp_path / "said").read_text()

    async def until(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < end
            await asyncio.sleep(0.02)

    try:
        await local.wait_ready()
        async with client.connect(local.endpoints) as hf:
            await hf.txn().then(hf.op.put("/app/a", "1"), hf.op.put("/app/b", "1")).commit()
            running = start()
            await until((target / "b").exists)
            assert shown(target) == {"a": b"1", "b": b"1"}
            assert not told.exists(), "the program reads the first files by itself"
            await hf.txn().then(hf.op.put("/app/a", "2"), hf.op.delete("/app/b")).commit()
            await until(lambda: shown(target) == {"a": b"2"} and told.exists())
            await hf.put("/app/..", "no name of a file")
            await until(lambda: "the files stay as they were" in said())
            await hf.txn().then(hf.op.put("/app/a", "3"), hf.op.delete("/app/..")).commit()
            await until(lambda: shown(target) == {"a": b"3"})
            await until(lambda: last_good.exists() and b"3" in last_good.read_bytes())
            running.send_signal(signal.SIGINT)
            running.wait(30)
        local.kill()
        for path in target.iterdir():
            if path.is_symlink():
                path.unlink()
        assert start("--once", "--timeout=2").wait(30) == 0, said()
        assert "from the last good file" in said()
        assert shown(target) == {"a": b"3"}
        assert start("--once", "--timeout=2", "--max-age=0.001").wait(30) == 3
        assert "over --max-age" in said()
    finally:
        local.kill()
