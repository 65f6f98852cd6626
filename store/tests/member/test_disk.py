"""The files of a member, opened: the log goes on from the state."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from holdfast.machine import Genesis
from holdfast.member.disk import found_cluster, make_log, open_disk
from holdfast.member.recovery import Replay, fit
from holdfast.proto import raft_pb2
from holdfast.raft.log import Entry
from holdfast.raft.types import DurableAppend, HardState
from holdfast.storage.identity import DataDirectory
from holdfast.storage.log import DurableLog, LogCorrupt


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
