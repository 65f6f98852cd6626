"""A replica with the role for it says whose call it forwards. It can give nobody more than it has itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from holdfast.api.identity import FORWARDED, MAX_VIA, ON_BEHALF, VIA, Identities
from holdfast.api.tokens import SimpleTokens
from holdfast.auth.followed import copy_of, rights_of
from holdfast.auth.store import NOBODY, REPLICA_ROLE, AuthStore, Principal
from holdfast.front.calls import Call, Peer
from holdfast.proto import auth_pb2, holdfast_pb2
from holdfast.status import RequestError

READWRITE = auth_pb2.Permission.READWRITE


def role(name: str, prefix: bytes = b"") -> auth_pb2.Role:
    made = auth_pb2.Role(name=name.encode())
    if prefix:
        made.keyPermission.add(permType=READWRITE, key=prefix, range_end=prefix[:-1] + bytes([prefix[-1] + 1]))
    return made


def user(name: str, *roles: str) -> auth_pb2.User:
    return auth_pb2.User(name=name.encode(), password=b"hash", roles=roles)


def store() -> AuthStore:
    return copy_of(
        holdfast_pb2.FollowRights(
            revision=7,
            users=[
                user("root", "root"),
                user("ann", "a", "b"),
                user("edge", REPLICA_ROLE, "a"),
                user("leaf", REPLICA_ROLE, "a"),
                user("other", "a"),
            ],
            roles=[role("a", b"/a/"), role("b", b"/b/"), role(REPLICA_ROLE)],
        )
    )


def call(certificate: str, **metadata: str) -> Call:
    names: Mapping[str, str] = {name.replace("_", "-"): value for name, value in metadata.items()}
    peer = Peer("10.0.0.1:1", tls=True, common_names=(certificate,) if certificate else ())
    return Call(1, "/etcdserverpb.KV/Range", peer, names, None)


def who(certificate: str, **metadata: str) -> Principal:
    identities = Identities(SimpleTokens(), trust_common_names=True)
    return identities.principal(call(certificate, **metadata), store())


def test_who_is_named_may_do_what_both_may() -> None:
    auth, named = store(), who("edge", **{FORWARDED: "1", ON_BEHALF: "ann"})
    assert named == Principal("ann", 7, ("edge",))
    auth.require_read(named, b"/a/1", b"")
    with pytest.raises(RequestError, match=r"permission denied: .* replica whose user 'edge' may not read /b/1;"):
        auth.require_read(named, b"/b/1", b"")  # ann may, edge may not
    with pytest.raises(RequestError, match=r"permission denied: .* replica whose user 'edge' may not write /b/1;"):
        auth.require_write(named, b"/b/1")
    with pytest.raises(RequestError, match=r"permission denied$"):
        auth.require_write(Principal("other", 7, ("edge",)), b"/b/1")  # neither may
    auth.require_read(Principal("ann", 7), b"/b/1", b"")


def test_nobody_administers_through_a_replica() -> None:
    auth, named = store(), who("edge", **{FORWARDED: "1", ON_BEHALF: "root"})
    with pytest.raises(RequestError, match="permission denied: through an edge replica nobody administers"):
        auth.require_admin(named)
    with pytest.raises(RequestError, match=r"permission denied$"):
        auth.require_admin(Principal("ann", 7, ("edge",)))
    with pytest.raises(RequestError, match="permission denied"):
        auth.require_write(named, b"/b/1")
    auth.require_write(named, b"/a/1")


@pytest.mark.parametrize("certificate", ["other", "ann", "", "unknown"])
def test_it_needs_the_role_for_that(certificate: str) -> None:
    with pytest.raises(RequestError, match=REPLICA_ROLE):
        who(certificate, **{FORWARDED: "1", ON_BEHALF: "ann"})


def test_a_name_that_is_not_forwarded_is_ignored() -> None:
    assert who("other", **{ON_BEHALF: "root"}) == Principal("other", 7)
    assert who("edge", **{FORWARDED: "1"}) == NOBODY


def test_all_replicas_on_the_way_vouch() -> None:
    assert who("edge", **{FORWARDED: "1", ON_BEHALF: "ann", VIA: "leaf"}).via == ("edge", "leaf")
    with pytest.raises(RequestError, match="'other'"):
        who("edge", **{FORWARDED: "1", ON_BEHALF: "ann", VIA: "leaf,other"})
    with pytest.raises(RequestError, match="in a row"):
        who("edge", **{FORWARDED: "1", ON_BEHALF: "ann", VIA: ",".join(["leaf"] * MAX_VIA)})


@pytest.mark.parametrize("via", [",", "leaf,", ",leaf"])
def test_an_empty_name_vouches_for_nobody(via: str) -> None:
    """It is that of a caller who has shown no certificate."""
    with pytest.raises(RequestError, match="''"):
        who("edge", **{FORWARDED: "1", ON_BEHALF: "ann", VIA: via})


def test_a_name_that_is_no_text_is_refused() -> None:
    """It ended the member, where it was answered."""
    with pytest.raises(RequestError, match="not UTF-8"):
        who("edge", **{FORWARDED: "1", ON_BEHALF: "\udcff"})


def test_names_are_encoded() -> None:
    assert who("edge", **{FORWARDED: "1", ON_BEHALF: "a%2Cb%20%C3%A4"}).user == "a,b ä"


def test_no_password_is_followed() -> None:
    rights = rights_of(store())
    assert {u.name for u in rights.users} == {b"root", b"ann", b"edge", b"leaf", b"other"}
    assert not any(u.password for u in rights.users)
