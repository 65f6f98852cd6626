"""Names of environment variables for the keys of a prefix, for programs that read their configuration from there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_OTHER = re.compile(r"[^A-Za-z0-9_]")


class NotVariables(ValueError):
    """Some keys cannot be environment variables. The message says which, and why."""


def name(key: bytes, prefix: bytes, *, upcase: bool = True) -> str:
    """The name of the variable for `key`: what follows the prefix, without a slash at its begin, in upper case, with
    each character that is not one of A-Z, 0-9 and _ replaced by _. Without `upcase`, a-z stay as they are."""
    rest = key[len(prefix) :].removeprefix(b"/")
    if upcase:
        rest = rest.upper()  # of bytes: ASCII only
    return _OTHER.sub("_", rest.decode(errors="surrogateescape"))


def names(keys: Iterable[bytes], prefix: bytes, *, upcase: bool = True) -> dict[str, bytes]:
    """The key of each variable. Raises NotVariables if two keys have the same name, or a key has none."""
    found: dict[str, bytes] = {}
    for key in keys:
        variable = name(key, prefix, upcase=upcase)
        if not variable:
            raise NotVariables(f"the key {key!r} cannot be a variable: nothing follows the prefix {prefix!r}")
        if variable in found:
            raise NotVariables(f"the keys {found[variable]!r} and {key!r} would both be {variable}: rename one of them")
        found[variable] = key
    return found


def variables(values: Mapping[bytes, bytes], prefix: bytes, *, upcase: bool = True) -> dict[bytes, bytes]:
    """The environment variables for these keys and values. Raises NotVariables."""
    found = {}
    for variable, key in names(sorted(values), prefix, upcase=upcase).items():
        if b"\0" in values[key]:
            raise NotVariables(f"the value of the key {key!r} has a zero byte, which no environment variable can have")
        found[variable.encode()] = values[key]
    return found
