"""What a union of permissions covers, against asking key by key."""

from __future__ import annotations

import hypothesis.strategies as st
from holdfast.auth.rights import Rights
from holdfast.keyrange import bounds, within
from hypothesis import given

keys = st.sampled_from([b"a", b"a\x00", b"ab", b"b", b"c", b"d", b"e"])
ends = st.sampled_from([b"", b"\x00", b"b", b"c", b"d", b"e", b"f"])
ranges = st.tuples(keys, ends)
# Enough keys to tell apart all ranges above.
PROBES = [key + more for key in (b"a", b"ab", b"b", b"c", b"d", b"e", b"f", b"z") for more in (b"", b"\x00", b"!")]


@given(st.lists(ranges, max_size=5), ranges)
def test_a_union_covers_what_its_parts_cover_together(
    granted: list[tuple[bytes, bytes]], asked: tuple[bytes, bytes]
) -> None:
    parts = [bounds(*grant) for grant in granted]
    low, high = bounds(*asked)
    wanted = [key for key in PROBES if within(key, low, high)]
    covered = all(any(within(key, start, end) for start, end in parts) for key in wanted)
    if Rights(parts).cover(*asked):
        assert covered
        assert high is not None or any(end is None for _, end in parts)
    elif wanted and (high is not None or any(end is None for _, end in parts)):
        assert not covered or (high is not None and high <= low)


def test_grants_that_touch_are_one() -> None:
    rights = Rights([bounds(b"a", b"b"), bounds(b"b", b"c")])
    assert rights.cover(b"a", b"c")
    assert not rights.cover(b"a", b"c\x00")
    assert not rights.cover(b"a", b"\x00")
    assert Rights([bounds(b"a", b"\x00")]).cover(b"b", b"\x00")
    assert not Rights([]).cover(b"a", b"")
