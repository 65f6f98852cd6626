"""A restore that was killed or failed: its directory founds no new, empty cluster. It is restored into again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from holdfast.cli.main import command_line
from holdfast.kv.store import Family
from holdfast.machine import Genesis
from holdfast.member.disk import open_disk
from holdfast.member.restore import RestoreRefused, restore
from holdfast.proto import raft_pb2
from holdfast.storage.archive import Manifest, pack
from holdfast.storage.doctor import examine
from holdfast.storage.identity import DataDirectory, DataDirectoryError
from holdfast.storage.state import RocksStore
from typer.testing import CliRunner

from ..small_disk import fill, small_disk

URLS = ("http://127.0.0.1:2380",)


class Crash(BaseException):
    pass


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    store = RocksStore(tmp_path / "saved")
    Genesis((raft_pb2.MemberInfo(id=1),)).write(store)
    store.apply([(Family.CUR, b"%05d" % n, os.urandom(1000)) for n in range(2000)])
    store.flush()
    store.checkpoint(tmp_path / "checkpoint")
    store.close()
    file = tmp_path / "saved.snap"
    pack(tmp_path / "checkpoint", file, Manifest(cluster_id=1, epoch=1, revision=1, index=1, term=1))
    with file.open("ab") as archive:
        archive.write(hashlib.sha256(file.read_bytes()).digest())
    return file


def opened(place: Path) -> bool:
    """Whether a member of that directory has been made, as `serve` sees it."""
    data = DataDirectory(place)
    try:
        return data.identity.made
    finally:
        data.close()


def finished(place: Path) -> bool:
    """False: `serve` refuses the directory, and says why."""
    try:
        assert opened(place), "it founds a cluster"
    except DataDirectoryError as error:
        if "snapshot restore" not in str(error):
            raise
        return False
    return True


def test_a_restore_killed_at_any_moment_is_finished_or_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`serve` founded a new cluster in it, without a word."""
    fsync, left = os.fsync, 0

    def crash(fd: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash
        fsync(fd)

    refused, moment = 0, 0
    while True:
        place, left = tmp_path / f"m{moment}", moment
        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", crash)
                restore(saved, place, "m", URLS)
            break
        except Crash:
            pass
        if not finished(place):
            report = examine(place)
            assert not report.safe
            assert "snapshot restore" in report.advice
            restore(saved, place, "m", URLS)
            refused += 1
        assert opened(place)
        assert not (place / "RESTORING").exists()
        assert examine(place).safe
        moment += 1
    assert refused > 5
    assert opened(place)
    assert not (place / "RESTORING").exists()


def test_a_restore_without_room_says_so_in_one_line(saved: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        fill(disk / "ballast", leave=1 << 20)
        words = ["snapshot", "restore", str(saved), f"--data-dir={disk / 'm'}"]
        result = CliRunner().invoke(command_line(), words)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.output.count("\n") == 1
        assert "no room" in result.output
        with pytest.raises(DataDirectoryError, match="restore"):
            opened(disk / "m")
        status = CliRunner().invoke(command_line(), ["doctor", f"--data-dir={disk / 'm'}"])
        assert status.exit_code == 4
        assert "may have acknowledged" not in status.output
        (disk / "ballast").unlink()
        assert CliRunner().invoke(command_line(), words).exit_code == 0
        assert opened(disk / "m")


def test_a_member_is_not_marked_by_a_restore_that_is_refused(saved: Path, tmp_path: Path) -> None:
    restore(saved, tmp_path / "m", "m", URLS)
    with pytest.raises(RestoreRefused, match="holds a member already"):
        restore(saved, tmp_path / "m", "m", URLS)
    assert not (tmp_path / "m" / "RESTORING").exists()
    open_disk(tmp_path / "m").store.close()
