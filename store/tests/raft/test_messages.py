"""One encoded frame is sent to several followers only if its content is the same for each."""

from __future__ import annotations

import pytest
from holdfast.raft.log import Entry
from holdfast.raft.messages import Append, Heartbeat, Message, same_append

ENTRY, LIKE_IT = Entry(5, 2, b"x"), Entry(5, 2, b"x")


def append(to: int, *, term: int = 2, prev: tuple[int, int] = (4, 2), entry: Entry = ENTRY, commit: int = 3) -> Append:
    return Append(to, 1, term, *prev, [entry], commit)


def test_the_same_append_to_two_followers_is_the_same() -> None:
    assert same_append(append(2), append(3))


@pytest.mark.parametrize(
    "other",
    [
        append(3, term=3),
        append(3, prev=(4, 1)),
        append(3, prev=(3, 2)),
        append(3, commit=4),
        append(3, entry=LIKE_IT),
        Append(3, 1, 2, 4, 2, [], 3),
        Append(3, 1, 2, 4, 2, [ENTRY, Entry(6, 2, b"y")], 3),
        Heartbeat(3, 1, 2, 3, 1),
    ],
)
def test_an_append_that_differs_in_anything_is_another_one(other: Message) -> None:
    assert not same_append(append(2), other)
    assert not same_append(other, append(2))


def test_other_messages_are_never_taken_for_the_same() -> None:
    assert not same_append(Heartbeat(2, 1, 2, 3, 1), Heartbeat(3, 1, 2, 3, 1))
