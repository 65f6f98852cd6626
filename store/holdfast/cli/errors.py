"""Errors of the command line: one clear line on standard error, and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error to standard error, and exit with `code`."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
