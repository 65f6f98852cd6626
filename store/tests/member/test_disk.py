"""The files of a member, opened: the log goes on from the state."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from holdfast.kv.store import Family
from holdfast.machine import Genesis
from holdfast.member.disk import found_cluster, make_log, open_disk
from holdfast.member.recovery import Replay, fit
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.identity import DataDirectory
from holdfast.storage.log import DurableLog, LogCorrupt
from holdfast.storage.sealed import SealedFile
from holdfast.storage.state import StateDirectory


def written(directory: Path, entries: int) -> DurableLog:
    log = DurableLog(directory, segment_bytes=4096)
    log.create()
    for n in range(1, entries + 1):
        log.append([DurableAppend(n, HardState(term=1, commit=n - 1), 0, (Entry(n, 1, bytes(200)),))])
    return log


def test_a_log_whose_oldest_segments_are_forgotten_is_replayed(tmp_path: Path) -> None:
    """Every segment begins with the hard state alone, which hid that the entries before were gone: a member that had
    written more than its log keeps could not start again."""
    log = written(tmp_path, 100)
    log.forget(60)
    log.close()
    replay = Replay(DurableLog(tmp_path, segment_bytes=4096).replay())
    assert 0 < replay.log.base_index <= 60
    assert replay.log.last == 100
    assert not fit(replay.log, 80, 1)
    assert replay.log.term(81) == 1


def test_a_log_that_begins_after_the_state_is_damage(tmp_path: Path) -> None:
    """The state went back, or older segments are gone that it still needs."""
    data = DataDirectory(tmp_path / "m")
    found_cluster(data, Genesis((raft_pb2.MemberInfo(id=1),)), 77)
    data.close()
    shutil.rmtree(tmp_path / "m" / "log")
    make_log(tmp_path / "m", (500, 3), 3)
    with pytest.raises(LogCorrupt, match=r"begins after entry 500, but the state in .* ends at 1: entries are missing"):
        open_disk(tmp_path / "m")


@pytest.mark.parametrize(("installed", "index"), [(None, 9), (9, 9), (0, 9), (5, 9)])
def test_a_state_ahead_of_the_log_is_one_just_received_or_the_log_is_older(
    tmp_path: Path, installed: int | None, index: int
) -> None:
    """A log put back from a backup was taken to end where the state does, and what it had behind that was lost."""
    place = tmp_path / "m"
    data = DataDirectory(place)
    found_cluster(data, Genesis((raft_pb2.MemberInfo(id=1),)), 77)
    data.close()
    disk = open_disk(place)
    disk.store.apply([(Family.META, b"applied", index.to_bytes(8, "big") + (1).to_bytes(8, "big"))])
    disk.store.flush()
    if installed is not None:
        disk.states.use(disk.store.path, installed=installed)
    else:  # of a program that noted nothing
        pointer = SealedFile(place / "state" / "current")
        pointer.read("")
        pointer.write({"generation": disk.store.path.name})
    disk.store.close()
    disk.durable.close()
    if installed in (None, index):
        disk = open_disk(place)
        assert (disk.log.base_index, disk.log.last) == (index, index)
        assert disk.states.installed == installed
        disk.store.close()
        disk.durable.close()
        states = StateDirectory(place / "state")
        states.current()
        assert states.installed == (installed or 0), "from now on it is noted"
    else:
        with pytest.raises(LogCorrupt, match=r"the log ends with entry 1, .*it is an older copy, or lost its end"):
            open_disk(place)
