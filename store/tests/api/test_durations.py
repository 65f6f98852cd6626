"""Durations in Go's notation, as flags and metadata have them."""

from __future__ import annotations

import pytest
from holdfast.durations import seconds


def test_durations_are_sums_of_their_parts() -> None:
    assert seconds("1h30m") == 5400
    assert seconds("300ms") == 0.3


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1s ", "nan", "1e308s", "1" * 20 + "s", "1" * 7000 + "s"])
def test_what_go_could_not_hold_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds(text)
