"""Who may read at a replica, and what it says of whose call it forwards."""

from __future__ import annotations

import pytest
from holdfast.api.identity import FORWARDED, ON_BEHALF, VIA
from holdfast.auth.store import REPLICA_ROLE
from holdfast.edge.access import Access
from holdfast.edge.core import ReplicaCore, ranges_of
from holdfast.edge.tokens import CheckedTokens
from holdfast.kv.store import MemoryStore
from holdfast.proto import holdfast_pb2
from holdfast.status import RequestError

from ..auth.test_vouching import call, role, user

RANGE = (b"/a/1", b"/a/2")
RIGHTS = holdfast_pb2.FollowRights(
    revision=7,
    users=[user("ann", "a"), user("bob"), user("leaf", REPLICA_ROLE)],
    roles=[role("a", b"/a/"), role(REPLICA_ROLE)],
)


class Replica:
    def __init__(self, *, users: bool = True, rights: bool = True, anonymous: bool = False) -> None:
        core = ReplicaCore(MemoryStore(), ranges_of(["/a/"]))
        core.rights.greeted(holdfast_pb2.FollowHello(users=users, rights=users and rights))
        if users and rights:
            core.take_rights(RIGHTS)
        self.reaches = True
        self.tokens = CheckedTokens(3600.0, b"", lambda: 1000.0)
        self.access = Access(
            core,
            self.tokens,
            name="berlin",
            trust_common_names=True,
            anonymous_reads=anonymous,
            reaches_cluster=lambda: self.reaches,
        )

    def reads(self, certificate: str, **metadata: str) -> bool:
        try:
            self.access.caller(call(certificate, **metadata)).require_read(RANGE)
        except RequestError:
            return False
        return True

    def writes(self, certificate: str) -> bool:
        try:
            self.access.caller(call(certificate)).require_write(b"/a/1")
        except RequestError:
            return False
        return True


def test_each_caller_has_its_own_rights() -> None:
    replica = Replica()
    assert replica.reads("ann")
    assert replica.writes("ann")
    assert not replica.reads("bob")
    assert not replica.reads("")
    replica.access.caller(call("bob")).require_user()
    with pytest.raises(RequestError, match="user name is empty"):
        replica.access.caller(call("")).require_user()


def test_without_users_everyone_may_read_and_without_their_rights_nobody() -> None:
    off, unknown, anonymous = Replica(users=False), Replica(rights=False), Replica(anonymous=True)
    assert off.reads("")
    assert off.writes("")
    assert anonymous.reads("")
    assert not anonymous.writes(""), "who may read anonymously may not write so"
    assert not unknown.reads("ann")
    assert not unknown.writes("ann")
    with pytest.raises(RequestError, match=REPLICA_ROLE):
        unknown.access.require_known()
    assert not unknown.access.is_replica(off.access.caller(call("leaf")).who())


def test_a_token_that_was_not_checked_is_asked_about_or_unavailable() -> None:
    replica = Replica()
    asked = call("", token="t")
    assert replica.access.due(asked) == "t"
    replica.reaches = False
    assert replica.access.due(asked) == ""
    with pytest.raises(RequestError, match="is cut off"):
        replica.access.caller(asked).require_read(RANGE)
    replica.tokens.checked("t", "ann", 7, ends_ms=0)
    replica.access.caller(asked).require_read(RANGE)
    replica.reaches = True
    assert replica.access.due(asked) == ""
    replica.tokens.refused("t")
    with pytest.raises(RequestError, match="invalid auth token"):
        replica.access.caller(asked).require_read(RANGE)


def test_it_says_whose_call_it_is_and_passes_on_what_replicas_say() -> None:
    access = Replica().access
    forged = {FORWARDED: "1", ON_BEHALF: "root"}
    assert access.on_behalf_of(call("a b")) == [(ON_BEHALF, "a%20b")]
    assert access.on_behalf_of(call("")) == []
    assert access.on_behalf_of(call("ann", token="t")) == [], "a token speaks for itself"
    assert access.on_behalf_of(call("leaf", **forged)) == [(ON_BEHALF, "root"), (VIA, "leaf")]
    assert access.on_behalf_of(call("leaf", **forged, **{VIA: "below"})) == [(ON_BEHALF, "root"), (VIA, "leaf,below")]
    assert access.on_behalf_of(call("leaf", **{FORWARDED: "1"})) == []
    assert access.on_behalf_of(call("", **forged)) == []
    for certificate in ("ann", "unknown"):  # a member refuses it: they have not the role of a replica
        assert access.on_behalf_of(call(certificate, **forged)) == [(ON_BEHALF, "root"), (VIA, certificate)]
    unknown = Replica(rights=False).access  # the member refuses this replica itself, which has not the role
    assert unknown.on_behalf_of(call("leaf", **forged)) == [(ON_BEHALF, "root"), (VIA, "leaf")]
