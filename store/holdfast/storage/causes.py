"""What RocksDB has met: rocksdict has one class of exception for everything, so its text has to tell, and here only."""

from __future__ import annotations

from enum import Enum


class Cause(Enum):
    """What RocksDB has met."""

    NO_ROOM = "the disk is full"
    DAMAGE = "a file is not as it was written"
    MISSING = "a file is not there"
    BUSY = "it takes no writes for a while"
    EARLIER = "a write to the same file has failed before"
    OTHER = "something else"


# The first of these words that is found decides: a corruption may be one of an incomplete record.
_WORDS = (
    ("no space left", Cause.NO_ROOM),
    ("disk quota exceeded", Cause.NO_ROOM),
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
