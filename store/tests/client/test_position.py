"""Positions: what a client has seen, compared with what a server answers."""

from __future__ import annotations

import pytest
from holdfast.client import Position
from holdfast.client.position import Seen
from holdfast.proto import rpc_pb2


def header(cluster: int, revision: int) -> rpc_pb2.ResponseHeader:
    return rpc_pb2.ResponseHeader(cluster_id=cluster, revision=revision)


def test_the_text_of_a_position_is_read_back() -> None:
    position = Position(0xC1, 42)
    assert Position.parse(str(position)) == position
    assert str(position) == "c1:42"


@pytest.mark.parametrize("text", ["", ":", "c1", "c1:", ":42", "C1:42", "c1:-1", "c1:42 ", "x:1", "0" * 17 + ":1"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no position"):
        Position.parse(text)


def test_an_answer_older_than_what_was_seen_is_behind() -> None:
    seen = Seen(floor=True)
    assert not seen.is_behind(header(1, 5)), "nothing was seen yet"
    seen.note(header(1, 5))
    seen.note(header(1, 3))  # of an earlier call that was slower
    assert seen.position == Position(1, 5)
    assert seen.is_behind(header(1, 4))
    assert not seen.is_behind(header(1, 5))
    assert (seen.has(5), seen.has(6)) == (True, False)


def test_another_cluster_at_the_same_address_begins_anew() -> None:
    seen = Seen(floor=True)
    seen.note(header(1, 500))
    assert not seen.is_behind(header(2, 3))
    seen.note(header(2, 3))
    assert seen.position == Position(2, 3)
    assert seen.is_behind(header(2, 2))


def test_without_a_floor_any_answer_is_taken() -> None:
    seen = Seen(floor=False)
    seen.note(header(1, 5))
    assert not seen.is_behind(header(1, 1))
    assert not seen.has(1)


def test_a_position_that_is_required_becomes_the_floor() -> None:
    seen = Seen(floor=False)
    seen.require(Position(1, 7))
    assert seen.is_behind(header(1, 6))
    seen.require(Position(1, 2))
    assert seen.position == Position(1, 7)
    with pytest.raises(ValueError, match="of the cluster 2"):
        seen.require(Position(2, 9))
