"""Parses durations: in Go's notation (300ms, 90s, 5m, 1h30m), as in etcd's flags, and in gRPC's header."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
LONGEST_SECONDS = (1 << 63) / 1e9  # Go counts nanoseconds in 63 bits


def seconds(text: str) -> float:
    """Parse a duration in Go's notation to seconds. Raises ValueError with a one-line message."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration: write 90s, 5m or 1h30m")
    found = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not found < LONGEST_SECONDS:
        raise ValueError(f"{text[:20]}… is too long: a duration is less than {LONGEST_SECONDS:g} s, as in Go")
    return found


_GRPC_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_GRPC_UNIT_NS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}


def grpc_timeout_ns(value: bytes) -> int | None:
    """Parse a grpc-timeout header to nanoseconds; None if it is malformed."""
    match = _GRPC_TIMEOUT.fullmatch(value)
    return int(match[1]) * _GRPC_UNIT_NS[match[2]] if match else None
