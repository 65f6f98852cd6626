"""`holdfast doctor`: checks a data directory for damage, and says how to recover."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.errors import fail


def doctor(
    data_dir: Annotated[Path, typer.Option(help="The data directory of a member or a replica.", show_default=False)],
) -> None:
    """Check a data directory for damage by reading all of it. Changes nothing.

    Exit status: 0 if it is safe to start, 4 if something is damaged.
    """
    try:
        from holdfast.storage.damage import EXIT_CODE
        from holdfast.storage.doctor import examine
        from holdfast.storage.identity import DataDirectoryError
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; this needs it: pip install 'holdfast[server]'")
    try:
        report = examine(data_dir)
    except (DataDirectoryError, OSError) as error:
        fail(str(error))
    for finding in report.findings:
        print(f"{finding.part:<15} {'ok     ' if finding.good else 'DAMAGED'} {finding.line}")
    if report.safe:
        print("it is safe to start")
        return
    print(report.advice)
    raise SystemExit(EXIT_CODE)
