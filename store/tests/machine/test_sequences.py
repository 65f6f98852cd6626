"""PutSequential in the state machine: the number is the revision, a command that is repeated gets its first key, and it
needs the right to write any of the keys."""

from __future__ import annotations

from holdfast.kv.store import MemoryStore
from holdfast.machine import Genesis, Machine
from holdfast.proto import holdfast_pb2, raft_pb2
from holdfast.proto.raft_pb2 import Command
from holdfast.raft.log import Entry
from holdfast.status import PERMISSION_DENIED, SEQUENCES_UNSUPPORTED, Code

from .test_client_sessions import SESSION, Log, put


def sequential(prefix: bytes, value: bytes = b"v", seq: int = 0, lease: int = 0) -> Command:
    request = holdfast_pb2.PutSequentialRequest(prefix=prefix, value=value, lease=lease)
    command = Command(put_sequential=request)
    if seq:
        command.session, command.session_seq, command.session_low = SESSION, seq, 1
    return command


def test_the_number_is_the_revision() -> None:
    log = Log()
    for _ in range(3):
        done = log.good(sequential(b"q/"))
        assert isinstance(done.response, holdfast_pb2.PutSequentialResponse)
        assert done.response.key == b"q/%020d" % done.revision
        assert [(change.key, change.revision) for change in done.changes] == [(done.response.key, done.revision)]


def test_a_command_that_is_repeated_makes_one_key() -> None:
    log = Log()
    log.open()
    first = log.good(sequential(b"q/", seq=1))
    log.good(put(b"other", b"v", 2))
    again = log.good(sequential(b"q/", seq=1))
    assert again.response == first.response
    assert not again.changes


def test_a_key_that_somebody_else_has_made_is_not_overwritten() -> None:
    log = Log()
    log.open()
    revision = log.machine.space.revision
    log.good(put(b"q/%020d" % (revision + 2), b"mine", 1))
    error = log.refused(sequential(b"q/"))
    assert getattr(error, "code", None) is Code.FAILED_PRECONDITION
    log.good(put(b"other", b"v", 2))
    log.good(sequential(b"q/"))


def test_it_needs_the_right_to_write_any_of_the_keys() -> None:
    log = Log()
    log.users()  # ann writes below a
    log.good(sequential(b"a/q/"), "ann")
    assert log.refused(sequential(b"b/q/"), "ann") == PERMISSION_DENIED
    assert log.refused(sequential(b"a/q/"), "bob") == PERMISSION_DENIED
    assert log.refused(sequential(b""), "ann") == PERMISSION_DENIED


def test_before_all_members_know_it_it_is_refused() -> None:
    store = MemoryStore()
    Genesis((raft_pb2.MemberInfo(id=1, name="m"),), "0.1.0").write(store)
    machine = Machine(store)
    done = machine.apply(Entry(2, 1, sequential(b"q/").SerializeToString()))
    assert done is not None
    assert done.error == SEQUENCES_UNSUPPORTED
