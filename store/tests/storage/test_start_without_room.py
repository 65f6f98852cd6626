"""A start on a disk without room: the log's spare segment gives way. If not enough, one line says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from holdfast.storage.identity import DataDirectoryError
from holdfast.storage.log import DurableLog

from ..small_disk import fill, free, small_disk
from .alone import Alone


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 48) as place:
        yield place


def _left(disk: Path, *, spare: bool) -> Path:
    """A member's directory on a disk that is full."""
    place = disk / "m"
    member = Alone(place)
    for n in range(20):
        member.put(b"%d" % n, b"v")
    log: DurableLog = member._disk.durable
    while spare and not log.prepared:
        log.prepare()
    member.close()
    fill(disk / "ballast")
    assert free(disk) == 0
    return place


def test_the_spare_segment_gives_way(disk: Path) -> None:
    place = _left(disk, spare=True)
    for _ in range(2):
        member = Alone(place)
        assert member.content() == {b"%d" % n: b"v" for n in range(20)}
        member.close()


def test_without_any_room_one_line_says_what_to_do(disk: Path) -> None:
    place = _left(disk, spare=False)
    with pytest.raises(DataDirectoryError, match=r"no room .* make room"):
        Alone(place)
    (disk / "ballast").unlink()
    member = Alone(place)
    assert len(member.content()) == 20
    member.close()
