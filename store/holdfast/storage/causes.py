"""Classifies RocksDB's errors: rocksdict has one exception class for all, so its text is matched, and only here."""

from __future__ import annotations

from enum import Enum


class Cause(Enum):
    """The cause of a RocksDB error."""

    NO_ROOM = "the disk is full"
    READ_ONLY = "the disk is mounted read-only"
    DAMAGE = "a file is not as it was written"
    MISSING = "a file is not there"
    BUSY = "it takes no writes for a while"
    EARLIER = "a write to the same file has failed before"
    OTHER = "something else"


# The first match decides: the text of a corruption may also contain "incomplete" (an incomplete record).
_WORDS = (
    ("no space left", Cause.NO_ROOM),
    ("disk quota exceeded", Cause.NO_ROOM),
    ("read-only file system", Cause.READ_ONLY),
    ("corruption", Cause.DAMAGE),
    ("does not exist", Cause.MISSING),
    ("no such file", Cause.MISSING),
    ("stall", Cause.BUSY),
    ("incomplete", Cause.BUSY),
    ("previous error", Cause.EARLIER),
)


def cause_of(error: Exception) -> Cause:
    text = str(error).lower()
    return next((cause for words, cause in _WORDS if words in text), Cause.OTHER)
