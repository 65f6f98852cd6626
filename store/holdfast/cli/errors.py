"""Errors at the command line: one clear line on standard error, and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn


def fail(message: str, code: int = 1) -> NoReturn:
    """Print why it cannot be done, and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
