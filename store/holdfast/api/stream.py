"""Interface of the handlers that streaming services create, one for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.front.calls import Call


class Stream(Protocol):
    """One open streaming call, served by callbacks."""

    def on_message(self, body: bytes) -> None: ...

    def on_half_close(self) -> None: ...

    def on_cancelled(self) -> None: ...

    def on_over(self) -> None:
        """The client does not keep up: send nothing more until on_writable."""
        ...

    def on_writable(self) -> None: ...


StreamHandler = Callable[[Call], Stream]
