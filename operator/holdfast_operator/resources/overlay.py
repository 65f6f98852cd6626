"""Merges a user's overlay into a pod spec. `model/overlay.py` decides which parts it may have."""

from __future__ import annotations

from typing import Any

from holdfast_operator.model.overlay import MERGED_BY
from holdfast_operator.resources.common import Object


def merged(base: Object, overlay: Object) -> Object:
    """Objects are merged field by field, and null removes a field. Lists of named things are merged by name, with new
    ones at the end; other lists and values are replaced. Neither argument is changed."""
    found = dict(base)
    for field, value in overlay.items():
        there = found.get(field)
        if value is None:
            found.pop(field, None)
        elif isinstance(value, dict):
            found[field] = merged(there if isinstance(there, dict) else {}, value)
        elif isinstance(value, list) and isinstance(there, list) and field in MERGED_BY:
            found[field] = _by_key(there, value, MERGED_BY[field])
        else:
            found[field] = value
    return found


def _by_key(base: list[Any], overlay: list[Any], key: str) -> list[Any]:
    changes = {item[key]: item for item in overlay}
    kept = [merged(item, changes.pop(item[key], {})) for item in base]
    return [*kept, *(merged({}, item) for item in changes.values())]
