"""Kept answers belong to a user and a command, from the cluster version on that supports it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import pytest
from holdfast.kv.store import Family, MemoryStore
from holdfast.machine import Applied, Genesis, LeaseEvent, Machine
from holdfast.proto import raft_pb2, rpc_pb2
from holdfast.raft.log import Entry
from holdfast.status import (
    AUTH_OLD_REVISION,
    PERMISSION_DENIED,
    SESSION_FOREIGN,
    SESSION_FORGOTTEN,
    SESSION_OTHER_COMMAND,
    USER_EMPTY,
)

Command = raft_pb2.Command
SESSION = 101


class Log:
    """A machine and the log that it applies, written by hand."""

    def __init__(self, version: str = "0.2.0") -> None:
        self.store = MemoryStore()
        Genesis((raft_pb2.MemberInfo(id=1, name="m"),), version).write(self.store)
        self.machine = Machine(self.store)

    def apply(self, command: Command, who: str = "") -> Applied:
        index = self.machine.applied_index + 1
        command.format, command.origin, command.incarnation = 1, 1, 1
        command.seq = command.window_low = index
        if who:
            command.principal, command.auth_revision = who, self.machine.auth.revision
        done = self.machine.apply(Entry(index, 1, command.SerializeToString(deterministic=True)))
        self.machine.flush()
        assert done is not None
        return done

    def good(self, command: Command, who: str = "") -> Applied:
        done = self.apply(command, who)
        assert done.error is None
        return done

    def refused(self, command: Command, who: str = "") -> object:
        before = self.machine.space.revision
        done = self.apply(command, who)
        assert self.machine.space.revision == before
        assert done.response is None
        return done.error

    def users(self) -> None:
        """root may everything, ann reads and writes below a, bob nothing. Auth is on from now on."""
        for user in ("root", "ann", "bob"):
            self.good(auth(user_add=rpc_pb2.AuthUserAddRequest(name=user, hashedPassword="eA==")))
        self.good(auth(user_grant_role=rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")))
        self.good(auth(role_add=rpc_pb2.AuthRoleAddRequest(name="r")))
        grant = rpc_pb2.AuthRoleGrantPermissionRequest(name="r")
        grant.perm.permType, grant.perm.key, grant.perm.range_end = 2, b"a", b"b"  # type: ignore[assignment]
        self.good(auth(role_grant_permission=grant))
        self.good(auth(user_grant_role=rpc_pb2.AuthUserGrantRoleRequest(user="ann", role="r")))
        self.good(auth(enable=rpc_pb2.AuthEnableRequest()))

    def open(self, who: str = "", session: int = SESSION) -> None:
        self.good(Command(lease_grant=raft_pb2.LeaseGrant(id=session, ttl_seconds=60, session=True)), who)

    def rows(self, prefix: bytes) -> list[bytes]:
        return [key for key, _ in self.store.scan(Family.META, prefix, prefix + b"\xff")]


def auth(**change: object) -> Command:
    return Command(auth=raft_pb2.AuthChange(**change))  # type: ignore[arg-type]


def put(key: bytes, value: bytes, seq: int, low: int = 1, session: int = SESSION) -> Command:
    request = rpc_pb2.PutRequest(key=key, value=value, prev_kv=True)
    return Command(put=request, session=session, session_seq=seq, session_low=low)


def value(log: Log, key: bytes) -> bytes | None:
    row = log.machine.space.get(key)
    return None if row is None else row.kv


def test_another_user_gets_neither_the_answer_nor_the_number() -> None:
    log = Log()
    log.users()
    log.open("root")
    first = log.good(put(b"b", b"secret", 1), "root")
    log.good(put(b"b", b"other", 2), "root")
    for who in ("ann", "bob"):
        assert log.refused(put(b"b", b"other", 2), who) is SESSION_FOREIGN  # the same command
        assert log.refused(put(b"a", b"mine", 1), who) is SESSION_FOREIGN
        assert log.refused(put(b"a", b"mine", 3), who) is SESSION_FOREIGN  # a number not used yet
        empty = Command(txn=rpc_pb2.TxnRequest(), session=SESSION, session_seq=3, session_low=1)
        assert log.refused(empty, who) is SESSION_FOREIGN
    again = log.good(put(b"b", b"secret", 1), "root")
    assert (again.revision, again.response) == (first.revision, first.response)
    assert log.good(put(b"b", b"third", 3), "root").changes


def test_nobody_in_particular_uses_up_no_number() -> None:
    log = Log()
    log.open()
    log.users()
    empty = Command(txn=rpc_pb2.TxnRequest(), session=SESSION, session_seq=1, session_low=1)
    assert log.refused(empty) is USER_EMPTY
    assert not log.rows(b"answer/")
    assert not log.rows(b"owner/")


def test_another_command_by_the_same_number_is_an_error() -> None:
    log = Log()
    log.open()
    first = log.good(put(b"a", b"1", 1))
    assert log.refused(put(b"a", b"2", 1)) is SESSION_OTHER_COMMAND
    other = Command(delete_range=rpc_pb2.DeleteRangeRequest(key=b"a"), session=SESSION, session_seq=1, session_low=1)
    assert log.refused(other) is SESSION_OTHER_COMMAND
    assert log.good(put(b"a", b"1", 1)).revision == first.revision
    # An id that the member chose is no part of what was asked; one that the client chose is.
    for minted, error in ((True, None), (False, SESSION_OTHER_COMMAND)):
        grants = [
            Command(
                lease_grant=raft_pb2.LeaseGrant(id=id, ttl_seconds=9, minted=minted),
                session=SESSION,
                session_seq=7 + minted,
                session_low=1,
            )
            for id in (500 + minted, 600 + minted)
        ]
        log.good(grants[0])
        assert log.apply(grants[1]).error is error
        assert 600 + minted not in log.machine.leases


def test_a_grant_that_is_told_again_gives_its_lease_the_full_ttl_but_grants_nothing() -> None:
    """The client counts the TTL from the answer that it got, so the leader's clock has to. A lease that is being
    revoked is not revived, as a granted one would be."""
    log = Log()
    log.open()

    def grant() -> Applied:
        lease = raft_pb2.LeaseGrant(id=7, ttl_seconds=9)
        return log.good(Command(lease_grant=lease, session=SESSION, session_seq=1, session_low=1))

    assert grant().effect == LeaseEvent({7: 9}, granted=True)
    assert grant().effect == LeaseEvent({7: 9}, granted=False)
    log.good(Command(lease_revoke=raft_pb2.LeaseRevoke(id=7)))
    assert grant().effect is None


def test_rights_are_those_of_now_also_for_a_kept_answer() -> None:
    log = Log()
    log.users()
    log.open("ann")
    first = log.good(put(b"a", b"1", 1), "ann")
    log.good(auth(user_revoke_role=rpc_pb2.AuthUserRevokeRoleRequest(name="ann", role="r")), "root")
    assert log.refused(put(b"a", b"1", 1), "ann") is PERMISSION_DENIED
    assert log.refused(put(b"a", b"2", 2), "ann") is PERMISSION_DENIED
    log.good(auth(user_grant_role=rpc_pb2.AuthUserGrantRoleRequest(user="ann", role="r")), "root")
    stale = put(b"a", b"2", 2)
    stale.principal, stale.auth_revision = "ann", log.machine.auth.revision - 1
    assert log.refused(stale) is AUTH_OLD_REVISION
    # What was refused for want of rights has used up nothing, and the answer before is still there.
    assert log.good(put(b"a", b"1", 1), "ann").revision == first.revision
    assert log.good(put(b"a", b"2", 2), "ann").changes


def test_a_session_of_before_users_counted_goes_to_the_first_user_who_names_a_command_by_it() -> None:
    log = Log()
    log.open()
    first = log.good(put(b"a", b"1", 1))
    log.users()
    assert log.refused(put(b"b", b"1", 2), "bob") is PERMISSION_DENIED  # and bob has not got it by that
    assert log.good(put(b"a", b"1", 1), "ann").revision == first.revision
    assert log.refused(put(b"a", b"2", 2), "root") is SESSION_FOREIGN
    assert Machine(log.store).clients.owner(SESSION) == "ann"
    # While auth is off, the user does not matter; afterwards the session is ann's again.
    log.good(auth(disable=rpc_pb2.AuthDisableRequest()), "root")
    log.good(put(b"a", b"3", 3))
    log.good(auth(enable=rpc_pb2.AuthEnableRequest()))
    assert log.refused(put(b"a", b"4", 4), "root") is SESSION_FOREIGN
    assert log.good(put(b"a", b"4", 4), "ann").changes


def test_a_session_is_ended_by_its_owner_or_root_and_leaves_nothing() -> None:
    log = Log()
    log.users()
    end = Command(lease_revoke=raft_pb2.LeaseRevoke(id=SESSION))
    for who in ("ann", "root"):
        log.open("ann")
        log.good(put(b"a", b"1", 1), "ann")
        assert log.refused(end, "bob") is PERMISSION_DENIED
        log.good(end, who)
        assert not log.rows(b"owner/")
        assert not log.rows(b"answer/")


def test_an_answer_that_an_older_program_kept_is_given_to_nobody_while_users_count() -> None:
    log = Log("0.1.0")
    log.open()
    log.good(put(b"b", b"secret", 1))
    log.good(Command(cluster_version=raft_pb2.ClusterVersion(version="0.2.0"), system=True))
    assert log.good(put(b"b", b"secret", 1)).changes == []
    log.users()
    assert log.refused(put(b"a", b"x", 1), "ann") is SESSION_FORGOTTEN
    assert log.good(put(b"a", b"x", 2), "ann").changes


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_command_that_cannot_be_named_falls_over_nothing(version: str) -> None:
    """Twice the same name for a change of users would have ended every member."""
    log = Log(version)
    log.open()
    for name in ("x", "y"):
        command = auth(role_add=rpc_pb2.AuthRoleAddRequest(name=name))
        command.session, command.session_seq, command.session_low = SESSION, 1, 1
        log.apply(command)


def _as_before() -> Iterator[Command]:
    yield Command(lease_grant=raft_pb2.LeaseGrant(id=101, ttl_seconds=60))
    yield put(b"a", b"1", 1)
    yield put(b"a", b"2", 1)
    yield put(b"a", b"3", 2)
    yield put(b"a", b"4", 2, session=102)
    yield put(b"a", b"5", 4, 3)
    yield put(b"a", b"6", 2, 2)
    for user in ("root", "eve"):
        yield auth(user_add=rpc_pb2.AuthUserAddRequest(name=user, hashedPassword="eA=="))
    yield auth(user_grant_role=rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
    yield auth(enable=rpc_pb2.AuthEnableRequest())
    for who, key, seq in (("root", b"b", 5), ("eve", b"c", 5), ("eve", b"c", 6), ("root", b"c", 6)):
        command = put(key, b"1", seq, 3)
        command.principal, command.auth_revision = who, 9
        yield command
    yield Command(compact=rpc_pb2.CompactionRequest(revision=3), principal="eve", auth_revision=9)
    yield Command(lease_revoke=raft_pb2.LeaseRevoke(id=101), principal="root", auth_revision=9)


def test_before_the_version_rises_a_log_is_applied_as_version_0_1_does_it() -> None:
    """The digest and all rows after each entry, as the program of version 0.1 left them."""
    log = Log("0.1.0")
    rows = blake2b(digest_size=8)
    for command in _as_before():
        log.apply(command)
        for family in Family:
            for key, row in log.store.scan(family, b"", None):
                rows.update(key + b"=" + row)
    assert (log.machine.digest, rows.hexdigest()) == (15782253486358891406, "6b0a4d0cbc4c1c8e")
