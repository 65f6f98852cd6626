"""Keys as environment variables: names, and what cannot be one."""

from __future__ import annotations

import pytest
from holdfast.client.environment import NotVariables, name, variables


@pytest.mark.parametrize(
    ("key", "upper", "as_is"),
    [
        (b"/app/db/url", "DB_URL", "db_url"),
        (b"/app/max-Size.kb", "MAX_SIZE_KB", "max_Size_kb"),
        (b"/app//x/", "X_", "x_"),
        (b"/app/7", "7", "7"),
        ("/app/größe".encode(), "GR__E", "gr__e"),
        (b"/app/\xff=", "__", "__"),
    ],
)
def test_a_name_is_what_follows_the_prefix(key: bytes, upper: str, as_is: str) -> None:
    assert (name(key, b"/app/"), name(key, b"/app/", upcase=False)) == (upper, as_is)
    assert name(b"/app/db", b"/app") == "DB"


def test_what_cannot_be_a_variable_is_named() -> None:
    assert variables({b"/a/x": b"1", b"/a/y": b"\xff"}, b"/a/") == {b"X": b"1", b"Y": b"\xff"}
    with pytest.raises(NotVariables, match=r"b'/a/x-y' and b'/a/x_Y' would both be X_Y"):
        variables({b"/a/x_Y": b"1", b"/a/x-y": b"2"}, b"/a/")
    assert len(variables({b"/a/x_Y": b"1", b"/a/x-y": b"2"}, b"/a/", upcase=False)) == 2
    with pytest.raises(NotVariables, match="nothing follows"):
        variables({b"/a/": b"1"}, b"/a/")
    with pytest.raises(NotVariables, match=r"b'/a/z' has a zero byte"):
        variables({b"/a/z": b"1\x002"}, b"/a/")
