"""Programs of others, as `make tools` builds them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CACHE = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast"))


def tool(name: str) -> str:
    """Its path. Raises FileNotFoundError that says what to do."""
    built = CACHE / "bin" / name
    found = str(built) if built.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is missing: run `make tools`")
    return found
