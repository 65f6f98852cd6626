"""Quantities as Kubernetes reads them."""

from __future__ import annotations

import pytest
from holdfast_operator.model.quantity import to_bytes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0", 0), ("1500", 1500), ("1500m", 1), ("1k", 1000), ("1Ki", 1024), ("1.5Gi", 3 << 29), ("2T", 2 * 10**12)],
)
def test_quantities(text: str, wanted: int) -> None:
    assert to_bytes(text) == wanted


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1", "1gi", "1e3", "٣Gi"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        to_bytes(text)
