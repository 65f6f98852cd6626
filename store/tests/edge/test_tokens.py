"""What a member said of a token is honoured for a while, and void when the user is gone or has another password."""

from __future__ import annotations

from holdfast.auth.followed import copy_of
from holdfast.auth.store import AuthStore, Principal
from holdfast.edge.tokens import CHECKED_AGAIN_SECONDS, MAX_TOKENS, CheckedTokens
from holdfast.proto import auth_pb2, holdfast_pb2

OFFLINE = 3600.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def users(revision: int = 5, password_revision: int = 2, name: str = "ann") -> AuthStore:
    user = auth_pb2.User(name=name.encode(), password_revision=password_revision)
    return copy_of(holdfast_pb2.FollowRights(revision=revision, users=[user]))


def test_a_token_is_honoured_until_the_time_that_was_said() -> None:
    clock = Clock()
    tokens = CheckedTokens(OFFLINE, b"", clock)
    assert tokens.identify("t", users()) is None
    assert tokens.due("t")
    tokens.checked("t", "ann", 3, ends_ms=0)
    tokens.checked("short", "ann", 3, ends_ms=int((clock.now + 10) * 1000))
    assert tokens.identify("t", users()) == Principal("ann", 5), "with the rights of now"
    assert not tokens.due("t")
    clock.now += 11
    assert tokens.identify("short", users()) is None, "it has expired"
    clock.now += CHECKED_AGAIN_SECONDS
    assert tokens.due("t"), "a member is asked again, and keeps it alive"
    assert tokens.identify("t", users()) is not None
    clock.now += OFFLINE
    assert tokens.identify("t", users()) is None


def test_a_token_ends_with_its_user_and_with_the_password() -> None:
    tokens = CheckedTokens(OFFLINE, b"", Clock())
    tokens.checked("t", "ann", 3, ends_ms=0)
    assert tokens.identify("t", users(password_revision=4)) is None
    assert tokens.identify("t", users(name="bob")) is None
    assert tokens.identify("t", users(password_revision=3)) is not None
    tokens.refused("t")
    assert tokens.identify("t", users()) is None


def test_it_is_known_after_a_restart_by_its_hash_only() -> None:
    clock = Clock()
    tokens = CheckedTokens(OFFLINE, b"", clock)
    tokens.checked("secret", "ann", 3, ends_ms=0)
    assert tokens.changed
    stored = tokens.stored()
    assert not tokens.changed
    assert b"secret" not in stored
    clock.now += 100
    again = CheckedTokens(OFFLINE, stored, clock)
    assert again.identify("secret", users()) == Principal("ann", 5)
    clock.now -= 200
    assert again.identify("secret", users()) is None, "a clock that was set back proves nothing"


def test_what_is_kept_is_bounded() -> None:
    tokens = CheckedTokens(OFFLINE, b"", Clock())
    for n in range(MAX_TOKENS + 5):
        tokens.checked(str(n), "ann", 3, ends_ms=0)
    assert tokens.identify("4", users()) is None
    assert tokens.identify("5", users()) is not None
