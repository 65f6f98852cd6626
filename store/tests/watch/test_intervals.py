"""Ranges that contain a key are found in time proportional to their number, however many others there are."""

from __future__ import annotations

import random

from holdfast.watch.interest import MAX_LENGTHS, Interest
from holdfast.watch.intervals import Intervals, Ref, _Node


def depth(node: _Node | None) -> int:
    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))


def test_ranges_that_hold_a_key_are_found_and_the_tree_stays_flat() -> None:
    rng = random.Random(1)
    found = Intervals()
    wanted: dict[Ref, tuple[bytes, bytes | None]] = {}
    for n in range(5000):
        start = b"%06d" % n  # in the order in which a plain tree would become a list
        end = None if n % 1000 == 7 else b"%06d" % (n + rng.randrange(1, 5))
        wanted[1, n] = (start, end)
        found.add((1, n), start, end)
    for ref in rng.sample(list(wanted), 2500):
        found.discard(ref, *wanted.pop(ref))
    assert len(found) == len(wanted)
    assert depth(found._root) < 60
    for _ in range(300):
        key = b"%06d" % rng.randrange(5100)
        holding = {ref for ref, (start, end) in wanted.items() if start <= key and (end is None or key < end)}
        assert set(found.of(key)) == holding
    for ref, range_ in wanted.items():
        found.discard(ref, *range_)
    assert found._root is None


def test_prefixes_of_many_lengths_are_not_all_looked_up() -> None:
    """Three thousand prefixes of as many lengths made each put of a long key take 5 ms."""
    interest = Interest()
    prefixes = [b"v" + b"x" * n for n in range(10 * MAX_LENGTHS)]
    ranges = [(prefix, prefix[:-1] + bytes([prefix[-1] + 1])) for prefix in prefixes]
    for n, range_ in enumerate(ranges):
        interest.add((1, n), (range_,))
    assert len(interest._lengths) == MAX_LENGTHS
    assert len(set(interest.of(b"v" + b"x" * 100))) == 101
    for n, range_ in enumerate(ranges):
        interest.remove((1, n), (range_,))
    assert not interest._lengths
    assert not len(interest._others)
