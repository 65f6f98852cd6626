"""The connections to the cells of one HoldfastCells. They are made anew when one of its places has changed.

A cell that cannot be tried at all has a client, too, whose calls fail with the reason: the set may have to change
without it.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from holdfast import cells, client
from holdfast.client.connection import Connection, Tls

from holdfast_operator.resources.cells import Place


class CellsConnection:
    def __init__(self, timeout: float) -> None:
        """`timeout`: seconds for each call."""
        self._timeout = timeout
        self._places: Mapping[str, Place] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._cells: cells.Cells | None = None

    def is_to(self, places: Mapping[str, Place]) -> bool:
        """Whether it is connected to just these places."""
        return self._cells is not None and self._places == places

    async def to(self, places: Mapping[str, Place]) -> cells.Cells:
        """The cells at these places."""
        if self._cells is None or self._places != places:
            await self.close()
            self._files = tempfile.TemporaryDirectory(prefix="holdfast-cells-")
            clients = {
                cell: _client(place, Path(self._files.name) / cell, self._timeout) for cell, place in places.items()
            }
            self._cells, self._places = cells.connect(clients, timeout=self._timeout), dict(places)
        return self._cells

    async def close(self) -> None:
        them, self._cells = self._cells, None
        files, self._files = self._files, None
        if them is not None:
            await them.close()
        if files is not None:
            files.cleanup()


def _client(place: Place, directory: Path, timeout: float) -> client.Client:
    if place.trouble:
        return client.Client(_Unreachable(place.trouble))
    try:
        tls = _written(place, directory)
    except (binascii.Error, ValueError) as error:
        return client.Client(_Unreachable(f"the Secret {place.secret} cannot be decoded: {error}"))
    return client.connect(place.endpoints, tls=tls, timeout=timeout, session_ttl=0)


def _written(place: Place, directory: Path) -> Tls | None:
    """The certificates as files, which gRPC reads when it connects. Raises ValueError."""
    if not place.secret:
        return None
    directory.mkdir(mode=0o700)
    for name, data in place.files:
        path = directory / name
        path.touch(0o600)
        path.write_bytes(base64.b64decode(data, validate=True))
    return Tls.from_directory(directory)


class _Unreachable(Connection):
    """Fails each call with the reason."""

    def __init__(self, trouble: str) -> None:
        super().__init__(["unreachable:0"], tls=None, timeout=1.0)
        self._trouble = trouble

    async def call(self, *_: Any, **__: Any) -> NoReturn:
        raise client.Unavailable(self._trouble)
