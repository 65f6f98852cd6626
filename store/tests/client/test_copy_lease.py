"""What the holder of a cache lease knows."""

from __future__ import annotations

from holdfast.client.copy_lease import REMEMBERED, CopyLease
from holdfast.proto import holdfast_pb2


def given(number: int, revision: int = 5, invalidations: int = 0) -> holdfast_pb2.CacheHoldResponse:
    return holdfast_pb2.CacheHoldResponse(
        number=number, lease_ms=2000, revision=revision, invalidations=invalidations, cluster_id=7
    )


def test_a_lease_counts_from_its_request_and_needs_a_copy_of_its_cluster_and_revision() -> None:
    lease = CopyLease(b"a", b"b")
    first = lease.ask(10.0)
    assert (first.key, first.range_end, first.number, first.acknowledged) == (b"a", b"b", 1, 0)
    assert not lease.current(9, 10.0, 7)
    assert not lease.take(given(1))
    assert lease.current(5, 11.9, 7)
    assert not lease.current(4, 11.9, 7)
    assert not lease.current(9, 11.9, 8)
    assert not lease.current(9, 12.0, 7)


def test_an_invalidation_ends_it_before_it_is_acknowledged() -> None:
    lease = CopyLease(b"a", b"")
    lease.ask(10.0)
    lease.take(given(1))
    assert lease.take(given(0, invalidations=1))
    assert not lease.valid(10.1)
    assert lease.ask(10.2).acknowledged == 1
    lease.take(given(2, revision=6, invalidations=1))
    assert (lease.revision, lease.until) == (6, 12.2)


def test_what_arrives_after_it_was_released_gives_nothing() -> None:
    lease = CopyLease(b"a", b"")
    lease.ask(10.0)
    lease.release()
    lease.take(given(1))
    assert not lease.valid(10.1)


def test_requests_without_an_answer_are_forgotten() -> None:
    lease = CopyLease(b"a", b"")
    for number in range(REMEMBERED + 1):
        lease.ask(float(number))
    lease.take(given(1))
    assert not lease.valid(0.5)
    lease.take(given(2))
    assert lease.valid(2.5)
