"""Keys as files: a whole state or the one before, whenever the writer is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from holdfast import client
from holdfast.cli.project import follow
from holdfast.cli.tell import Tell
from holdfast.client.projection import Projection, Unfit, names
from holdfast_lab import swaps
from holdfast_lab.processes import LocalCluster


def shown(directory: Path) -> dict[str, bytes]:
    """What a program sees by the visible names."""
    found = {}
    for place, directories, files in os.walk(directory, followlinks=True):
        directories[:] = [name for name in directories if not name.startswith("..")]
        for path in (Path(place) / name for name in files if not name.startswith("..")):
            found[str(path.relative_to(directory))] = path.read_bytes()
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


@pytest.mark.integration
def test_no_reader_sees_a_mix_whichever_step_the_writer_is_killed_before() -> None:
    """`python -m holdfast_lab swaps` does it 10,000 times."""
    command = [sys.executable, "-m", "holdfast_lab", "swaps", "--swaps=200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 swaps" in done.stdout
    for step in ("open", "os.mkdir", "os.symlink", "os.rename"):
        assert f"{step} " in done.stdout, "each of the steps was one to be killed before"


def test_a_reader_that_sees_a_mix_is_noticed(tmp_path: Path) -> None:
    made = Projection(tmp_path / "d", b"/")
    made.write(swaps.state(4))
    assert swaps.read(tmp_path / "d") == 4
    (tmp_path / "d" / "f3").write_bytes(b"5")
    with pytest.raises(swaps.Mixed):
        swaps.read(tmp_path / "d")
    made.write({key: value for key, value in swaps.state(6).items() if key != b"/f5"})
    with pytest.raises(swaps.Mixed):
        swaps.read(tmp_path / "d")


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


def test_what_the_program_was_not_told_is_known_after_a_restart(tmp_path: Path) -> None:
    def write(value: bytes, *, told: bool) -> bool:
        made = Projection(tmp_path, b"/")
        made.write({b"/a": value})
        untold = made.untold()
        if told:
            made.mark_told()
            assert not made.untold()
        return untold

    assert not write(b"1", told=False), "the program reads the first files by itself"
    assert not write(b"1", told=True)
    assert not write(b"1", told=True)
    assert write(b"2", told=False), "it changed while nothing ran"
    assert write(b"2", told=False), "killed before it was told"
    assert write(b"2", told=True)
    assert not write(b"2", told=True)
    (tmp_path / "..told").unlink()
    assert not write(b"2", told=False), "nothing has changed since a version that kept no record"
    assert write(b"3", told=True), "this has changed since"
    assert shown(tmp_path) == {"a": b"3"}


@pytest.mark.integration
async def test_the_program_is_told_of_a_change_that_came_while_nothing_ran(tmp_path: Path) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    told = tmp_path / "told"
    tell = Tell(command=("sh", "-c", f"cat {tmp_path}/d/a >> {told}"))
    try:
        await local.wait_ready(100)
        async with client.connect(local.endpoints) as hf:

            async def run() -> str:
                async with await hf.cache("/app/") as cache:
                    await follow(cache, Projection(tmp_path / "d", b"/app/"), tell, once=True)
                return told.read_text() if told.exists() else ""

            await hf.put("/app/a", "1")
            assert [await run(), await run()] == ["", ""]
            await hf.put("/app/a", "2")
            assert [await run(), await run()] == ["2", "2"]
    finally:
        local.kill()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    made = Projection(tmp_path, b"/")
    made.write({b"/a": b"1"})
    before = sorted(os.listdir(tmp_path))
    for _ in range(2):
        with pytest.raises(OSError, match="too long"):
            made.write({b"/a": b"2", b"/" + b"/".join([b"x" * 250] * 20): b""})
    assert sorted(os.listdir(tmp_path)) == before
    assert shown(tmp_path) == {"a": b"1"}


@pytest.mark.integration
async def test_what_is_missing_is_put_back_without_a_change(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    target, told = tmp_path / "d", tmp_path / "told"
    tell = Tell(command=("sh", "-c", f"cat {target}/a >> {told}"))
    said = ""

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await asyncio.sleep(0.01)

    def says(text: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return text in said

    try:
        await local.wait_ready(100)
        async with client.connect(local.endpoints) as hf, await hf.cache("/app/") as cache:
            await hf.put("/app/a", "1")
            await cache.current()
            made = Projection(target, b"/app/")
            following = asyncio.ensure_future(follow(cache, made, tell, once=False, check_seconds=0.05))
            try:
                await until(lambda: shown(target) == {"a": b"1"})
                (target / "a").unlink()
                await until(lambda: shown(target) == {"a": b"1"})
                assert not told.exists(), "these are the files that it knows"
                (target / "b").write_text("of somebody else")
                await hf.txn().then(hf.op.put("/app/a", "2"), hf.op.put("/app/b", "2")).commit()
                await until(lambda: says("b is there already"))
                assert shown(target) == {"a": b"1", "b": b"of somebody else"}
                (target / "b").unlink()
                await until(lambda: shown(target) == {"a": b"2", "b": b"2"})
                await until(lambda: told.exists() and told.read_text() == "2")
                assert not says("once more")
                assert said.count("is there already") == 1, "it is said once, not at each retry"
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
    finally:
        local.kill()


# Waits for SIGHUP, and says what its files held when it came.
WAITER = """
import signal, sys
from pathlib import Path
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print("ready", flush=True)
while True:
    signal.sigwait([signal.SIGHUP])
    print((Path(sys.argv[1]) / "a").read_text(), flush=True)
"""


@pytest.mark.integration
async def test_the_signal_comes_when_the_files_are_there(tmp_path: Path) -> None:
    """Nothing on the way waits for a time. `benchmarks/applications.py` measures it."""
    local = LocalCluster(tmp_path / "c", voters=1)
    local.start()
    target, pid_file = tmp_path / "d", tmp_path / "pid"
    try:
        await local.wait_ready(100)
        async with client.connect(local.endpoints) as hf:
            await hf.put("/app/a", "0")
            waiter = await asyncio.create_subprocess_exec(sys.executable, "-c", WAITER, target, stdout=subprocess.PIPE)
            assert waiter.stdout is not None
            await waiter.stdout.readline()
            pid_file.write_text(str(waiter.pid))
            command = [sys.executable, "-m", "holdfast", "project", "/app/", str(target), f"--pid-file={pid_file}"]
            running = await asyncio.create_subprocess_exec(
                *command, f"--endpoints={local.endpoints[0]}", stderr=subprocess.PIPE
            )
            assert running.stderr is not None
            await running.stderr.readline()  # the first files are there
            for n in range(1, 20):
                await hf.put("/app/a", str(n))
                assert await waiter.stdout.readline() == b"%d\n" % n
            running.terminate()
            waiter.kill()
            await asyncio.gather(running.wait(), waiter.wait())
    finally:
        local.kill()


async def test_a_command_that_does_not_end_is_ended_with_what_it_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for trap in ("", "trap '' TERM;"):
        script = f"{trap} sleep 600 & echo $! > helper; {trap} sleep 600"
        await Tell(command=("sh", "-c", f"cd {tmp_path}; {script}"), seconds=0.5).now()
        assert "did not end within 0.5 s, and is ended: --exec-timeout gives it more" in capfd.readouterr().err
        helper = int((tmp_path / "helper").read_text())
        for path in (Path(f"/proc/{helper}/stat"),):
            end = time.monotonic() + 30
            while path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < end
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("text", ["0", "-1", "", "x", "\u0663", "1_0", f"{2**31}", "9" * 30, "12 13"])
async def test_a_pid_file_that_names_no_process_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "pid").write_text(text)
    await Tell(signal=0, pid_file=tmp_path / "pid").now()  # signal 0 harms nobody, should it be sent
    assert "it has to hold the id of a process, a number over 0" in capfd.readouterr().err


async def test_an_answer_that_is_not_http_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"what?\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        await Tell(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/").now()
    assert "BadStatusLine" in capfd.readouterr().err


async def test_each_way_of_telling_is_tried(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "told"
    await Tell(pid_file=tmp_path / "none", command=("touch", str(told)), url="http://127.0.0.1:1/").now()
    assert told.exists()
    said = capfd.readouterr().err
    assert "FileNotFoundError" in said
    assert "refused" in said
    await Tell(command=("false",)).now()
    await Tell(command=("no-such-command",)).now()
    said = capfd.readouterr().err
    assert "false ended with 1" in said
    assert "no-such-command" in said
