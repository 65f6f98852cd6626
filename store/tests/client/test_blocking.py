"""The blocking client has what the asyncio client has, and its methods take the same."""

from __future__ import annotations

import inspect

import pytest
from holdfast.client import BlockingClient, Client, SiteView
from holdfast.client.blocking_site import BlockingSite

LEFT_OUT = {"connection"}  # it belongs to the client's loop
MORE = {
    "asyncio",  # the asyncio client
    "run",  # a coroutine of it
    "running",
    "revoke",  # a lease is one of asyncio
    "hang_up",  # for forks
    "go_on",
    "forked",
    "here",
}


def public(kind: type) -> set[str]:
    attributes = set(dir(kind)) | {"connection"} if kind is Client else set(dir(kind))
    return {name for name in attributes if not name.startswith("_")}


def test_the_same_names() -> None:
    assert public(BlockingClient) - MORE == public(Client) - LEFT_OUT
    assert public(BlockingSite) - {"asyncio", "run", "running"} == public(SiteView)


METHODS = [
    (kind, blocking, name)
    for kind, blocking in ((Client, BlockingClient), (SiteView, BlockingSite))
    for name in sorted(public(kind) - LEFT_OUT)
    if inspect.isfunction(inspect.getattr_static(kind, name))
]


@pytest.mark.parametrize(("kind", "blocking", "name"), METHODS, ids=[name for _, _, name in METHODS])
def test_the_same_parameters(kind: type, blocking: type, name: str) -> None:
    theirs, ours = (inspect.signature(getattr(of, name)) for of in (kind, blocking))
    assert [str(p) for p in ours.parameters.values()] == [str(p) for p in theirs.parameters.values()]


def test_properties_are_properties() -> None:
    for name in public(Client) - LEFT_OUT:
        here = isinstance(inspect.getattr_static(Client, name), property)
        assert isinstance(inspect.getattr_static(BlockingClient, name), property) == here, name
