"""The JSON log format, with etcd's field names, as an alternative to plain lines."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Formats each record as an object: level, ts, logger, caller, msg, and the member's name."""

    def __init__(self, member: str) -> None:
        super().__init__()
        self._member = member

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        fields = {
            "level": record.levelname.lower(),
            "ts": at.replace("+00:00", "Z"),
            "logger": record.name,
            "caller": f"{record.module}.py:{record.lineno}",
            "member": self._member,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            fields["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)
