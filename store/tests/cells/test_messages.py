"""A message that the destination could never carry out is not sent: it would stop the queue."""

from __future__ import annotations

import pytest
from holdfast.cells import Message
from holdfast.cells.queue import MAX_WRITES
from holdfast.client.txn import Key, Ops


def test_a_message_is_unpacked_as_it_was_packed() -> None:
    message = Message((Ops.put("/a", "1"), Ops.delete("/b")), (Key("/a").version == 0,))
    assert Message.unpacked(message.packed()) == message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Message([Ops.put("/a", "1"), Ops.delete("/a")]), "each key once"),
        (Message([Ops.put(f"/{n}", "1") for n in range(MAX_WRITES + 1)]), f"at most {MAX_WRITES} writes"),
        (Message([], [Key("/a").version == 0] * (MAX_WRITES + 1)), f"at most {MAX_WRITES} writes"),
        (Message([Ops.put("/cells/self", "1")]), "cannot be written"),
        (Message([Ops.delete("/a", prefix=True)]), "single keys"),
    ],
)
def test_what_is_refused(message: Message, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        message.packed()
