"""Reads the objects that the API server has accepted.

The CRD may be newer than the operator, so a field may be unknown here without being wrong. Such a field is ignored and
reported, and everything else about the object goes on. What is known but cannot be understood is an error.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from holdfast_operator.model.common import Model

M = TypeVar("M", bound=Model)
_SHOWN = 60  # characters of a wrong value; longer ones, such as configuration data, are not repeated


class InvalidSpec(Exception):
    """The object cannot be understood. The message names each field that is wrong, and why."""


@dataclass(frozen=True, slots=True)
class Parsed(Generic[M]):
    """`unknown`: paths of the fields that were ignored, such as spec.voters.flavour."""

    spec: M
    unknown: tuple[str, ...]


def parse(model: type[M], obj: Mapping[str, Any]) -> Parsed[M]:
    """The spec of `obj`, which is a whole object as the API server returned it. Raises InvalidSpec."""
    if not isinstance(obj.get("spec"), Mapping):
        raise InvalidSpec("spec is missing, or is not an object")
    return _tolerant(model, obj["spec"], "spec")


def parse_status(model: type[M], obj: Mapping[str, Any]) -> M:
    """The status of `obj`, without what is unknown; an object that has none has an empty one. Raises InvalidSpec."""
    status = obj.get("status") or {}
    if not isinstance(status, Mapping):
        raise InvalidSpec("status is not an object")
    return _tolerant(model, status, "status").spec


def _tolerant(model: type[M], given: Mapping[str, Any], part: str) -> Parsed[M]:
    try:
        return Parsed(model.model_validate(given), ())
    except ValidationError as error:
        found = error.errors(include_url=False)
    unknown = [e["loc"] for e in found if e["type"] == "extra_forbidden"]
    if not unknown:
        raise InvalidSpec("; ".join(_described(e["loc"], e["msg"], e["input"], part) for e in found))
    known = copy.deepcopy(dict(given))
    for location in unknown:
        holder: Any = known
        for step in location[:-1]:
            holder = holder[step]
        del holder[location[-1]]
    # What is below an unknown field, or beside it, is checked now.
    parsed = _tolerant(model, known, part)
    return Parsed(parsed.spec, tuple(sorted({*parsed.unknown, *(_path(loc, part) for loc in unknown)})))


def _path(location: tuple[int | str, ...], part: str) -> str:
    return part + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)


def _described(location: tuple[int | str, ...], message: str, value: Any, part: str) -> str:
    text = f"{_path(location, part)}: {message.removeprefix('Value error, ')}"
    shown = repr(value)
    if isinstance(value, Mapping | list) or len(shown) > _SHOWN:
        return text
    return f"{text} (it is {shown})"
