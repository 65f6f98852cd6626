"""What is served while a replica is cut off."""

from __future__ import annotations

import pytest
from holdfast.edge.offline import SKEW_SECONDS, Kind, KnownFresh, OfflinePolicies, Policy, parse_policy
from holdfast.status import RequestError


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("/a/=serve", Policy("/a/", Kind.SERVE)),
        ("/a/=require-online", Policy("/a/", Kind.REQUIRE_ONLINE)),
        ("/a/=serve-until=1h30m", Policy("/a/", Kind.SERVE_UNTIL, 5400.0)),
        ("/a=b/=serve-until=2s", Policy("/a=b/", Kind.SERVE_UNTIL, 2.0)),
    ],
)
def test_policies(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    "text", ["", "/a/", "=serve", "/a/=no", "/a/=serve-until", "/a/=serve-until=", "/a/=serve-until=2"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no offline policy|is not a duration"):
        parse_policy(text)


@pytest.mark.parametrize("age", ["0s", "0ms", "0h"])
def test_no_time_at_all_is_refused(age: str) -> None:
    with pytest.raises(ValueError, match="write /a/=require-online, or a longer time"):
        parse_policy(f"/a/=serve-until={age}")


class Replica:
    online = True
    age: float | None = 1.0

    def __init__(self, *policies: str) -> None:
        self.policies = OfflinePolicies(
            [parse_policy(text) for text in policies],
            name="berlin",
            online=lambda: self.online,
            age_seconds=lambda: self.age,
        )

    def serves(self, low: bytes, high: bytes | None = None) -> bool:
        try:
            self.policies.check((low, high or low + b"\x00"))
        except RequestError:
            return False
        return True


def test_a_key_goes_by_its_longest_prefix() -> None:
    replica = Replica("/a/=require-online", "/a/always/=serve", "/a/while/=serve-until=10s")
    keys = (b"/a/1", b"/a/always/1", b"/a/while/1", b"/b/1")
    assert [replica.serves(key) for key in keys] == [True] * 4
    replica.online, replica.age = False, 9.0
    assert [replica.serves(key) for key in keys] == [False, True, True, True]
    replica.age = 11.0
    assert [replica.serves(key) for key in keys] == [False, True, False, True]
    replica.age = None
    assert not replica.serves(b"/a/while/1"), "of an age that is not known it is not served"


def test_a_range_is_served_if_all_of_it_is() -> None:
    replica = Replica("/a/secret/=require-online")
    replica.online = False
    assert not replica.serves(b"/a/", b"/a0")
    assert not replica.serves(b"/a/secret/1", b"/a/secret/2")
    assert not replica.serves(b"/", b"\xff")
    assert replica.serves(b"/a/", b"/a/secret/")
    assert replica.serves(b"/a/secret0", b"/a0")
    inner = Replica("/a/=require-online", "/a/always/=serve")
    inner.online = False
    assert inner.serves(b"/a/always/", b"/a/always0")
    assert not inner.serves(b"/a/always/", b"/a/b")


def test_watches_learn_when_it_changes() -> None:
    replica = Replica("/a/=require-online", "/b/=serve-until=10s", "/c/=serve")
    assert replica.policies.state() == (True, True, True)
    replica.online = False
    before = replica.policies.state()
    replica.age = 11.0
    assert before != replica.policies.state()


def test_the_age_goes_on_while_the_replica_is_down() -> None:
    now = 1_000_000.0
    known = KnownFresh(b"", lambda: now)
    assert known.age(None) is None, "it never was fresh"
    stored = known.store(2_000)
    assert stored is not None
    now += 100
    again = KnownFresh(stored, lambda: now)
    assert again.age(None) == pytest.approx(102)
    assert again.age(500) == 0.5
    assert again.store(None) is None
    now -= 102 + SKEW_SECONDS + 1
    assert again.age(None) is None, "a clock that was set back proves nothing"
