"""Errors of the command line: one clear line on standard error, and an exit code."""

from __future__ import annotations

import sys
import time
from typing import NoReturn


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error to standard error, and exit with `code`."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def say(line: str) -> None:
    """Print a line of a command that runs for long to standard error, with the time."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}", file=sys.stderr, flush=True)
