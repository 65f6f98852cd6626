"""The damage of `test_every_file` shows when a rule of the storage does not hold: here each rule is broken in turn.

A rule that can be broken without a failure is not tested.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from holdfast.raft.invariant import InvariantViolation
from holdfast.storage import mark, records, sealed
from holdfast.storage.damage import Damaged
from holdfast.storage.state import StateDirectory

from .test_every_file import Past, damage, past, put_back, refusal

__all__ = ["past"]  # a fixture

LIMIT = 1000
Break = Callable[[pytest.MonkeyPatch], None]


def sealed_unchecked(patch: pytest.MonkeyPatch) -> None:
    def unseal(data: bytes) -> tuple[int, sealed.Fields]:
        body = json.loads(data)
        return body["written"], body["fields"]

    patch.setattr(sealed, "_unseal", unseal)


def pointer_cleaned_first(patch: pytest.MonkeyPatch) -> None:
    """Other generations are removed before the generation in use is known to be intact."""
    original = StateDirectory.current

    def current(self: StateDirectory) -> Path:
        try:
            return original(self)
        except Damaged:
            for path in [path for path in self._directory.iterdir() if path.is_dir()]:
                shutil.rmtree(path)
            raise

    patch.setattr(StateDirectory, "current", current)


def frame_unchecked(patch: pytest.MonkeyPatch) -> None:
    def read(data: bytes, offset: int) -> records.Frame | None:
        if offset + records._FRAME.size > len(data):
            return None
        length, _, synced = records._FRAME.unpack_from(data, offset)
        end = offset + records._FRAME.size + length
        if not 0 < length <= records.MAX_FRAME_BYTES or end > len(data):
            return None
        return records.Frame(offset, end + (-length % 8), synced, data[offset + records._FRAME.size : end])

    patch.setattr(records, "_read_frame", read)


def mark_ignored(patch: pytest.MonkeyPatch) -> None:
    original = mark._read

    def read(slot: bytes) -> tuple[int, int] | None:
        found = original(slot)
        return None if found is None else (found[0], 0)

    patch.setattr(mark, "_read", read)


def state_ahead_of_its_log_taken(patch: pytest.MonkeyPatch) -> None:
    original = StateDirectory.current

    def current(self: StateDirectory) -> Path:
        place = original(self)
        self.installed = None
        return place

    patch.setattr(StateDirectory, "current", current)


BROKEN: dict[str, Break] = {
    "a sealed file has a checksum": sealed_unchecked,
    "a start that is refused removes nothing": pointer_cleaned_first,
    "a frame has a checksum": frame_unchecked,
    "the log reaches up to the mark": mark_ignored,
    "a state is ahead of its log only if it was just received": state_ahead_of_its_log_taken,
}


def noticed(past: Past, tmp_path: Path) -> str:
    """The first damage that is neither refused nor harmless."""
    for which in range(7):
        place = put_back(past, tmp_path / f"back{which}", which, "log*")
        try:
            refusal(past, place)
        except (Exception, InvariantViolation) as error:
            return f"log of {which}: {error!r}"
    for number in range(LIMIT):
        place = tmp_path / f"{number}"
        file, kind = damage(past, place, number)
        try:
            refusal(past, place)
        except (Exception, InvariantViolation) as error:
            return f"{number}: {file.name} {kind}: {error!r}"
        shutil.rmtree(place)
    return ""


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_noticed(past: Past, tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[rule](monkeypatch)
    found = noticed(past, tmp_path)
    print(found[:200])
    assert found, f"{LIMIT} damages did not notice that {rule!r} does not hold"
