"""One file of a member is damaged, or a file and its copy: a start refuses, or everything acknowledged is there.

It never has silently less. Each damage is drawn from a number, which every failure shows: `damage(N)` repeats it.
"""

from __future__ import annotations

import itertools
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from holdfast.kv.store import StateDamaged
from holdfast.raft.invariant import InvariantViolation
from holdfast.storage import identity
from holdfast.storage.damage import Damaged
from holdfast.storage.identity import DataDirectoryError
from holdfast.storage.log import DurableLog
from holdfast_lab.crash.damage import KINDS, damage_file, files_of

from .alone import Alone

DAMAGES = 400
REFUSED = (Damaged, StateDamaged, DataDirectoryError)


@dataclass(frozen=True)
class Past:
    """A directory as a killed process left it, earlier states of it, and what was acknowledged by the end."""

    now: Path
    earlier: tuple[Path, ...]
    content: dict[bytes, bytes]
    term: int


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    base = tmp_path_factory.mktemp("past")
    place, content = base / "m", dict[bytes, bytes]()
    count = 0

    def write(member: Alone, puts: int) -> None:
        nonlocal count
        for _ in range(puts):
            count += 1
            key = b"k%03d" % (count * 7 % 60)
            content[key] = b"%d " % count + b"v" * 300
            member.put(key, content[key])

    earlier: list[Path] = []

    def keep() -> None:
        earlier.append(Path(shutil.copytree(place, base / f"earlier{len(earlier)}")))

    with pytest.MonkeyPatch.context() as patch:
        defaults = DurableLog.__init__.__kwdefaults__
        assert defaults is not None
        patch.setitem(defaults, "segment_bytes", 16 << 10)
        # Starts are distinguished by the minute: these were an hour ago, ten minutes apart.
        clock = itertools.count(int(time.time()) - 3600, 600)
        patch.setattr(identity, "time", SimpleNamespace(time=lambda: next(clock)))
        for flushes in (2, 1, 2):
            member = Alone(place)
            write(member, 25)
            keep()
            for _ in range(flushes):
                write(member, 40)
                member.flush(keep=30)
                write(member, 25)
                keep()
            member.close()
        member = Alone(place)
        write(member, 30)
        term = member.term
        # As kill -9 leaves it: nothing is flushed.
        now = Path(shutil.copytree(place, base / "now"))
        member.close()
    return Past(now, tuple(earlier), content, term)


def damage(past: Past, place: Path, number: int) -> tuple[Path, str]:
    """Do the damage of this number to a fresh copy in `place`; returns the file, and how."""
    chance = Random(number)
    shutil.copytree(past.now, place)
    files = files_of(place)
    file = chance.choice(files)
    kind = chance.choice((*KINDS, "older"))
    if kind == "older":
        older = [e / file.relative_to(place) for e in past.earlier]
        older = [o for o in older if o.exists() and o.read_bytes() != file.read_bytes()]
        if older:
            shutil.copy(chance.choice(older), file)
            return file, kind
        kind = "flipped"
    damage_file(file, kind, chance)
    if file.with_name(f"{file.name}.copy") in files and chance.random() < 0.5:
        copy = file.with_name(f"{file.name}.copy")
        damage_file(copy, chance.choice(KINDS), chance)
        return file, f"{kind}, and its copy"
    return file, kind


def refusal(past: Past, place: Path) -> str:
    """What the member says when it refuses to start or to answer. Empty: all is there."""
    before = {file for file in files_of(place) if file.suffix == ".sst" or file.parent.name == "log"}
    try:
        member = Alone(place)
    except REFUSED as error:
        gone = before - set(files_of(place))
        assert not gone, f"refused, and removed {gone}"
        return str(error)
    try:
        content = member.content()
        assert content == past.content, f"{len(past.content)} keys were acknowledged, {len(content)} are right"
        assert member.term > past.term
        member.put(b"again", b"x")
    except REFUSED as error:
        return str(error)
    finally:
        member.close()
    return ""


def test_an_undamaged_copy_has_everything(past: Past, tmp_path: Path) -> None:
    place = Path(shutil.copytree(past.now, tmp_path / "m"))
    assert refusal(past, place) == ""
    assert len(list((place / "log").glob("*.log"))) > 2


@pytest.mark.parametrize("tenth", range(10))
def test_any_damage_to_one_file_is_refused_or_harmless(past: Past, tmp_path: Path, tenth: int) -> None:
    for number in range(tenth * DAMAGES // 10, (tenth + 1) * DAMAGES // 10):
        place = tmp_path / f"{number}"
        file, kind = damage(past, place, number)
        case = f"damage {number}: {file.relative_to(place)} {kind}"
        try:
            said = refusal(past, place)
        except (Exception, InvariantViolation) as error:
            raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
        assert not said or str(file.parent) in said or str(file.with_suffix("")) in said, f"{case}: {said}"
        shutil.rmtree(place)


def put_back(past: Past, place: Path, which: int, part: str) -> Path:
    """A fresh copy in `place`, with `part` as it was at an earlier moment."""
    shutil.copytree(past.now, place)
    for old in place.glob(part):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for file in past.earlier[which].glob(part):
        target = place / file.relative_to(past.earlier[which])
        shutil.copytree(file, target) if file.is_dir() else shutil.copy(file, target)
    return place


PARTS = ("log", "state", "state/current*", "identity.json*", "log.synced", "[!l]*")
# A log with the mark that fits it is noticed only if the state is ahead of it, as it is of all but the last: no member
# can tell alone that all of its volume is a backup.
LOG_AND_MARK = ("log*", "[!s]*")
CASES = [(w, p) for w in range(8) for p in PARTS] + [(w, p) for w in range(7) for p in LOG_AND_MARK]


@pytest.mark.parametrize(("which", "part"), CASES)
def test_an_older_copy_of_a_part_is_refused_or_harmless(past: Past, tmp_path: Path, which: int, part: str) -> None:
    """A part of a backup is restored, as it was at one of eight earlier moments."""
    place = put_back(past, tmp_path / "m", which, part)
    said = refusal(past, place)
    assert not said or str(place) in said
