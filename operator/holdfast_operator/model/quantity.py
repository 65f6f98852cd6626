"""Kubernetes' quantities as numbers."""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i)?")
_DECIMAL = {"m": Fraction(1, 1000), "": Fraction(1), **{u: Fraction(1000) ** n for n, u in enumerate("kMGTPE", 1)}}
_BINARY = {f"{u}i": Fraction(1024) ** n for n, u in enumerate("KMGTPE", 1)}


def to_bytes(quantity: str) -> int:
    """How many bytes `quantity` means, rounded down. Raises ValueError if it is no quantity."""
    found = _FORM.fullmatch(quantity)
    if found is None:
        raise ValueError(f"{quantity!r} is not a quantity such as 500M or 1Gi")
    number, unit = found.groups()
    return int(Fraction(number) * {**_DECIMAL, **_BINARY}[unit or ""])
