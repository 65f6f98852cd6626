"""Reads what `holdfast cells` is to do from a file or from standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from holdfast.cli.errors import fail

TextFile = Annotated[Path, typer.Argument(metavar="[FILE]", help="File with the text; - reads standard input.")]
T = TypeVar("T")


def parsed(file: Path, parse: Callable[[str], T]) -> T:
    """What `parse` makes of the text. Exits if there is none, or if it is wrong."""
    try:
        data = sys.stdin.buffer.read() if file == Path("-") else file.read_bytes()
    except OSError as error:
        fail(str(error))
    try:
        return parse(os.fsdecode(data))
    except ValueError as error:
        fail(str(error) if file == Path("-") else f"{file}: {error}", 2)
