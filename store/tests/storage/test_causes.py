"""Texts as RocksDB 9 writes them, and what each means for the state."""

from __future__ import annotations

import pytest
from holdfast.storage.causes import Cause, cause_of


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("IO error: No space left on device: While appending to file: /s/000012.sst", Cause.NO_ROOM),
        ("IO error: While open a file for appending: /s/000012.log: Disk quota exceeded", Cause.NO_ROOM),
        ("Corruption: block checksum mismatch: stored = 1, computed = 2 in /s/000009.sst", Cause.DAMAGE),
        ("Corruption: truncated record, or an incomplete one, in /s/MANIFEST-000005", Cause.DAMAGE),
        ("IO error: No such file or directory: While open a file for random read: /s/000009.sst", Cause.MISSING),
        ("Invalid argument: /s: does not exist (create_if_missing is false)", Cause.MISSING),
        ("Result incomplete: Write stall", Cause.BUSY),
        ("IO error: Permission denied: /s/LOCK", Cause.OTHER),
    ],
)
def test_a_text_has_one_cause(text: str, cause: Cause) -> None:
    assert cause_of(Exception(text)) is cause
