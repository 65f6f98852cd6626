"""Declarations of cachable prefixes in the state machine."""

from __future__ import annotations

import pytest
from holdfast.machine import Machine
from holdfast.machine.cachable import MAX_PREFIXES
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.proto.raft_pb2 import Command
from holdfast.status import CACHES_UNSUPPORTED

from .test_client_sessions import Log


def cachable(prefix: bytes, *, allowed: bool = True) -> Command:
    return Command(cachable=raft_pb2.CachablePrefix(prefix=prefix, allowed=allowed))


def changed(log: Log, command: Command) -> bool:
    done = log.good(command)
    assert isinstance(done.response, holdfast_pb2.CachePrefixResponse)
    return done.response.changed


def test_a_prefix_is_declared_and_taken_back() -> None:
    log = Log()
    revision = log.machine.space.revision
    assert changed(log, cachable(b"a/"))
    assert not changed(log, cachable(b"a/"))
    assert changed(log, cachable(b"\xff\xff"))
    assert log.machine.cachable == {b"a/", b"\xff\xff"}
    assert Machine(log.machine.store).cachable == {b"a/", b"\xff\xff"}  # of a restart, or a snapshot
    assert changed(log, cachable(b"a/", allowed=False))
    assert not changed(log, cachable(b"a/", allowed=False))
    assert Machine(log.machine.store).cachable == {b"\xff\xff"}
    assert log.machine.space.revision == revision


@pytest.mark.parametrize("prefix", [b"", b"a", b"a/b/c", b"x" * 1025])
def test_prefixes_without_sense_are_refused(prefix: bytes) -> None:
    log = Log()
    log.good(cachable(b"a/b/"))
    error = log.apply(cachable(prefix)).error
    assert error is not None
    assert "cachable prefix" in error.message
    assert log.machine.cachable == {b"a/b/"}


def test_there_are_so_many_at_most() -> None:
    log = Log()
    for number in range(MAX_PREFIXES):
        log.good(cachable(b"%02d" % number))
    error = log.apply(cachable(b"more")).error
    assert error is not None
    assert "the most" in error.message


def test_at_level_one_there_are_none() -> None:
    assert Log("0.1.0").refused(cachable(b"a/")) == CACHES_UNSUPPORTED
