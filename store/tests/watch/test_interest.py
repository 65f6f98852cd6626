"""Finding the watchers of a key, compared with checking each watcher."""

from __future__ import annotations

import hypothesis.strategies as st
from holdfast.keyrange import prefix_end, within
from holdfast.watch.interest import Interest, Range
from hypothesis import given

keys = st.binary(max_size=3).filter(bool) | st.sampled_from([b"a", b"ab", b"\xff", b"\xff\xff"])
single = keys.map(lambda k: (k, k + b"\x00"))
prefixes = keys.map(lambda k: (k, None if prefix_end(k) == b"\x00" else prefix_end(k)))
others = st.tuples(st.binary(max_size=2), st.none() | keys)
ranges = st.lists(single | prefixes | others, min_size=1, max_size=3).map(tuple)


@given(st.lists(st.tuples(ranges, st.booleans()), max_size=20), st.lists(keys, max_size=10))
def test_it_finds_who_watches_a_key(watchers: list[tuple[tuple[Range, ...], bool]], asked: list[bytes]) -> None:
    interest = Interest()
    for number, (what, _) in enumerate(watchers):
        interest.add((1, number), what)
    for number, (what, gone) in enumerate(watchers):
        if gone:
            interest.remove((1, number), what)
    left = {(1, number): what for number, (what, gone) in enumerate(watchers) if not gone}
    assert len(interest) == len(left)
    for key in asked:
        found = set(interest.of(key))
        assert found == {ref for ref, what in left.items() if any(within(key, low, high) for low, high in what)}
    for ref, what in left.items():
        interest.remove(ref, what)
    assert not interest._keys
    assert not interest._prefixes
    assert not len(interest._others)
    assert not interest._lengths
