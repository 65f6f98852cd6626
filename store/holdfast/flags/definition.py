"""What a valid definition of a flag is.

A provider takes a whole document or nothing of it: one wrong flag in it, and an application keeps all of its old flags,
or has none after a restart. So a definition is checked here as strictly as the strictest provider does, and an invalid
one is left out. The JSON is of the kind that every provider can read: no NaN, no numbers beyond a double, no deep
nesting. Fields that flagd does not know are dropped, because the Python provider refuses them.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

MAX_DEPTH = 64  # of nested objects and arrays
MAX_DEFINITION_BYTES = 128 << 10  # of one flag or one shared rule
MAX_DOCUMENT_BYTES = 1 << 20  # of a whole document in one key, which is parsed in one go
MAX_ELEMENTS = 4096  # of one flag or one shared rule, see `elements`
MAX_DOCUMENT_ELEMENTS = 20_000  # of a whole document
MAX_SHOWN = 100  # characters of a name in a text
MAX_NUMBER = 1.7976931348623157e308

_RULE_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SCALARS = (str, int, float)  # bool is an int


class Invalid(Exception):
    """A value cannot be used as what it should be. The message says why, in a few words."""


def elements(value: bytes) -> int:
    """A bound on the number of values in this JSON, which decides how long parsing takes: about a microsecond each.
    Separators and brackets are counted, also those in strings, because this has to be known before parsing."""
    return sum(map(value.count, (b",", b":", b"[", b"{")))


def parse_object(
    value: bytes, max_bytes: int = MAX_DEFINITION_BYTES, max_elements: int = MAX_ELEMENTS
) -> dict[str, Any]:
    """The JSON object in `value`. Raises Invalid."""
    if len(value) > max_bytes:
        raise Invalid(f"it has {len(value)} bytes; at most {max_bytes} are allowed")
    if (found_elements := elements(value)) > max_elements:
        raise Invalid(f"it has {found_elements} of the characters , : [ {{ ; at most {max_elements} are allowed")
    try:
        found = json.loads(value.decode(), parse_constant=_refuse, parse_float=_float, parse_int=_int)
    except UnicodeDecodeError:
        raise Invalid("it is not UTF-8") from None
    except RecursionError:
        raise Invalid(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise Invalid(f"it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Invalid("it is not a JSON object")
    check_depth(found)
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _float(text: str) -> float:
    number = float(text)
    if abs(number) > MAX_NUMBER:
        raise ValueError("a number is too large")
    return number


def _int(text: str) -> int:
    number = int(text)  # raises ValueError for thousands of digits
    if abs(number) > MAX_NUMBER:
        raise ValueError("a number is too large")
    return number


def check_depth(value: object, limit: int = MAX_DEPTH) -> None:
    """Raise Invalid if `value` is nested too deeply."""
    level: list[Any] = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, dict | list))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, dict | list))
        if not inner:
            return
        level = inner
    raise Invalid(f"it is nested deeper than {limit} levels")


def flag(found: object) -> dict[str, Any]:
    """The definition of a flag as providers take it. Raises Invalid."""
    if not isinstance(found, dict):
        raise Invalid("it is not a JSON object")
    state, variants = found.get("state"), found.get("variants")
    if state not in ("ENABLED", "DISABLED"):
        raise Invalid('"state" must be "ENABLED" or "DISABLED"')
    if not isinstance(variants, dict) or not variants:
        raise Invalid('"variants" must be an object with at least one variant')
    taken: dict[str, Any] = {"state": state, "variants": variants}
    default = found.get("defaultVariant")
    if default is not None:
        if not isinstance(default, str) or (default and default not in variants):
            raise Invalid('"defaultVariant" must be the name of a variant')
        taken["defaultVariant"] = default
    targeting = found.get("targeting")
    if targeting is not None:
        if not isinstance(targeting, dict):
            raise Invalid('"targeting" must be an object')
        taken["targeting"] = targeting
    metadata = found.get("metadata")
    if metadata is not None:
        taken["metadata"] = check_metadata(metadata)
    return taken


def rule(found: object) -> dict[str, Any]:
    """A shared targeting rule. Raises Invalid."""
    if not isinstance(found, dict):
        raise Invalid("it is not a JSON object")
    if not found:
        raise Invalid("it is empty, and the Go provider refuses a document with an empty shared rule")
    return found


def check_rule_name(name: str) -> None:
    """Raise Invalid if a shared rule cannot have this name: the Go provider puts it into a regular expression, and
    refuses the whole document if that is invalid or matches something else."""
    if not _RULE_NAME.fullmatch(name):
        raise Invalid("the name of a shared rule has only ASCII letters, digits, _ and -, and at least one")


def check_flag_name(name: str) -> None:
    """Raise Invalid if a flag cannot have this name: `$` begins names that have a meaning of their own."""
    if not name or name.startswith("$"):
        raise Invalid("a name is not empty and does not begin with $")


def check_metadata(found: object) -> dict[str, Any]:
    """Metadata of a flag or of a set of flags. Raises Invalid."""
    if not isinstance(found, dict) or not all(k and isinstance(v, _SCALARS) for k, v in found.items()):
        raise Invalid('"metadata" must be an object of strings, numbers and booleans')
    return found


def shown(name: str) -> str:
    """A name as it is shown in texts: short, and without characters that a log or a message cannot take."""
    cut = name[:MAX_SHOWN]
    return "".join(c if c.isprintable() else "?" for c in cut) + ("..." if len(name) > MAX_SHOWN else "")
