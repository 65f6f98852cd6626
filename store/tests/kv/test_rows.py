"""Rows of the key space as they are stored."""

from __future__ import annotations

import hypothesis.strategies as st
from holdfast.kv import rows
from hypothesis import example, given


@given(st.binary(max_size=300), st.binary(max_size=10), st.integers(0, 1 << 40))
@example(b"", b"", 0)
@example(b"k" * 127, b"v", 1)
@example(b"k" * 128, b"v", 1)
def test_the_key_of_a_serialised_key_value(key: bytes, value: bytes, revision: int) -> None:
    assert rows.key_of(rows.encode_kv(key, value, revision, revision, 1, 0)) == key
    assert rows.key_of(rows.encode_tombstone(key, revision)) == key
