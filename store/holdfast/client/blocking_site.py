"""`SiteView` without `await`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from holdfast.client.client import Client
from holdfast.client.delegated import waits_for
from holdfast.client.site import SiteView


class Owner(Protocol):
    """The blocking client."""

    @property
    def asyncio(self) -> Client: ...
    @property
    def running(self) -> bool: ...
    def run(self, work: Coroutine[Any, Any, Any]) -> Any: ...


class BlockingSite:
    """The keys as a site sees them; see `SiteView`."""

    def __init__(self, owner: Owner, name: str) -> None:
        """Raises ValueError if this is no name of a site."""
        self._owner = owner
        self._name = name
        owner.asyncio.site(name)

    @property
    def asyncio(self) -> SiteView:
        """That of this process."""
        return self._owner.asyncio.site(self._name)

    @property
    def running(self) -> bool:
        return self._owner.running

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._owner.run(work)

    get = waits_for(SiteView.get)
    range = waits_for(SiteView.range)
    put = waits_for(SiteView.put)
    delete = waits_for(SiteView.delete)
