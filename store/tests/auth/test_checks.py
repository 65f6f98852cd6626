"""What a request needs rights for, and how often a transaction has the keys of a lease checked."""

from __future__ import annotations

from collections import UserDict

import pytest
from holdfast.auth.checks import check_delete, check_put, check_put_sequential, check_txn
from holdfast.auth.followed import RightsFrame, copy_of, rights_of
from holdfast.auth.store import NOBODY, AuthStore, Principal
from holdfast.kv.store import MemoryStore, Pending
from holdfast.proto import auth_pb2, holdfast_pb2, rpc_pb2
from holdfast.status import PERMISSION_DENIED, RequestError

_P = auth_pb2.Permission
WHO = Principal("app", 5)
Put, Delete = rpc_pb2.PutRequest, rpc_pb2.DeleteRangeRequest


class _Leased(UserDict[int, list[bytes]]):
    """Counts how often the keys of a lease are asked for."""

    asked = 0

    def __getitem__(self, lease: int) -> list[bytes]:
        self.asked += 1
        return super().__getitem__(lease)


def test_a_lease_that_many_puts_join_is_checked_once() -> None:
    """Or a hundred puts would go through the hundreds of thousands of keys that hang on it a hundred times."""
    leased = _Leased({7: [b"a"], 8: [b"b"]})
    puts = [
        rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"%d" % n, lease=7 if n % 2 else 8)) for n in range(100)
    ]
    nested = rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(success=puts[:50], failure=puts))
    check_txn(AuthStore(Pending(MemoryStore())), NOBODY, rpc_pb2.TxnRequest(success=[*puts, nested]), leased)
    assert leased.asked == 2


def followed() -> holdfast_pb2.FollowRights:
    """The user `app` may read below r/, write below w/ and do both below b/."""
    grants = [(_P.READ, b"r/"), (_P.WRITE, b"w/"), (_P.READWRITE, b"b/")]
    role = auth_pb2.Role(name=b"some")
    for kind, prefix in grants:
        role.keyPermission.add(permType=kind, key=prefix, range_end=prefix[:-1] + b"0")
    user = auth_pb2.User(name=b"app", roles=["some"], password_revision=3)
    return holdfast_pb2.FollowRights(revision=5, roles=[role], users=[user])


def allowed(check: object, request: object, *more: object) -> bool:
    assert callable(check)
    try:
        check(copy_of(followed()), WHO, request, *more)
    except RequestError as error:
        if error.refusal != PERMISSION_DENIED:
            raise
        return False
    return True


@pytest.mark.parametrize(("key", "prev_kv", "may"), [("w/a", False, True), ("w/a", True, False), ("b/a", True, True)])
def test_to_be_told_the_previous_value_takes_the_right_to_read(key: str, prev_kv: bool, may: bool) -> None:
    assert allowed(check_put, Put(key=key.encode(), prev_kv=prev_kv), {}) is may
    assert allowed(check_delete, Delete(key=key.encode(), prev_kv=prev_kv)) is may


def test_a_right_to_read_is_none_to_write() -> None:
    assert not allowed(check_put, Put(key=b"r/a"), {})
    assert not allowed(check_delete, Delete(key=b"r/a"))
    assert not allowed(check_delete, Delete(key=b"w/", range_end=b"\0"))


def test_a_numbered_key_needs_the_right_to_all_numbers() -> None:
    request = holdfast_pb2.PutSequentialRequest
    assert allowed(check_put_sequential, request(prefix=b"w/"), {})
    assert not allowed(check_put_sequential, request(prefix=b"x/"), {})


def test_who_joins_a_lease_needs_the_rights_to_its_keys() -> None:
    """Because who joins it may be the one who lets it expire."""
    for keys, may in (([b"w/other", b"b/other"], True), ([b"w/other", b"r/other"], False)):
        assert allowed(check_put, Put(key=b"w/a", lease=7), {7: keys}) is may
        request = holdfast_pb2.PutSequentialRequest(prefix=b"w/", lease=7)
        assert allowed(check_put_sequential, request, {7: keys}) is may
        put = rpc_pb2.RequestOp(request_put=Put(key=b"w/a", lease=7))
        assert allowed(check_txn, rpc_pb2.TxnRequest(success=[put]), {7: keys}) is may


def test_a_transaction_needs_the_rights_for_all_that_it_names() -> None:
    good = rpc_pb2.RequestOp(request_put=Put(key=b"w/a"))
    assert allowed(check_txn, rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"r/a")], success=[good]), {})
    for bad in (
        rpc_pb2.RequestOp(request_put=Put(key=b"r/a")),
        rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=b"w/a")),
        rpc_pb2.RequestOp(request_delete_range=Delete(key=b"w/a", range_end=b"x/")),
    ):
        nested = rpc_pb2.RequestOp(request_txn=rpc_pb2.TxnRequest(failure=[bad]))
        for txn in (
            rpc_pb2.TxnRequest(success=[good, bad]),
            rpc_pb2.TxnRequest(success=[good], failure=[bad]),
            rpc_pb2.TxnRequest(success=[nested]),
        ):
            assert not allowed(check_txn, txn, {})
    assert not allowed(check_txn, rpc_pb2.TxnRequest(compare=[rpc_pb2.Compare(key=b"w/a")]), {})


def test_what_replicas_follow_are_rights_without_passwords() -> None:
    auth = copy_of(followed())
    auth.users["app"].password = b"a hash"
    assert rights_of(auth) == followed()


def test_rights_are_encoded_once_for_all_that_follow() -> None:
    auth, frame = copy_of(followed()), RightsFrame()
    first = frame.of(auth)
    assert holdfast_pb2.FollowResponse.FromString(first).rights == followed()
    assert frame.of(auth) is first
    auth.revision = 6
    assert holdfast_pb2.FollowResponse.FromString(frame.of(auth)).rights.revision == 6
