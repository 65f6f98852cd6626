"""Sets up the logs of a server process."""

from __future__ import annotations

import logging

from holdfast.cli.errors import fail
from holdfast.logs import JsonLines


def set_up_logging(level: str, name: str, form: str = "console") -> None:
    number = getattr(logging, level.upper(), None)
    if not isinstance(number, int):
        fail(f"--log-level {level!r} is not one of debug, info, warning, error")
    if form not in ("console", "json"):
        fail(f"--log-format {form!r} is not console or json")
    logging.basicConfig(level=number, format=f"%(asctime)s %(levelname)-7s {name} %(message)s")
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonLines(name))
    # At level debug libraries log all their data: hpack logs every header, including tokens.
    logging.getLogger().setLevel(max(number, logging.INFO))
    logging.getLogger("holdfast").setLevel(number)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
