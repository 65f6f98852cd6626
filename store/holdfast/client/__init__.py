"""The Python client: reads, writes and watches configuration, over etcd's API and the extensions of holdfast.

    from holdfast import client

    async with client.connect("shop-edge.default.svc:2379") as hf:
        value = (await hf.get("/stores/common/flag")).value
        async for event in hf.watch("/stores/", prefix=True):
            ...

`connect_blocking` returns a client with the same methods without `await`.


Each name is imported when it is first used: a replica, and each command, needs few of them when it starts.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.client.applied import Applied, SyncState, applied_key, digest, sync_state
    from holdfast.client.blocking import BlockingClient, connect_blocking
    from holdfast.client.cache import Cache
    from holdfast.client.client import Client, connect
    from holdfast.client.config import Config, InvalidConfig
    from holdfast.client.connection import Tls
    from holdfast.client.errors import (
        ClientError,
        Compacted,
        OutcomeUnknown,
        OutOfScope,
        Refused,
        Unavailable,
    )
    from holdfast.client.forks import Forked
    from holdfast.client.freshness import Freshness
    from holdfast.client.lease import Lease
    from holdfast.client.position import Position
    from holdfast.client.site import SiteValue, SiteView
    from holdfast.client.txn import Txn, TxnResult
    from holdfast.client.values import Event, KeyValue, PutResult, RangeResult, SequentialResult

__all__ = [
    "Applied",
    "BlockingClient",
    "Cache",
    "Client",
    "ClientError",
    "Compacted",
    "Config",
    "Event",
    "Forked",
    "Freshness",
    "InvalidConfig",
    "KeyValue",
    "Lease",
    "OutOfScope",
    "OutcomeUnknown",
    "Position",
    "PutResult",
    "RangeResult",
    "Refused",
    "SequentialResult",
    "SiteValue",
    "SiteView",
    "SyncState",
    "Tls",
    "Txn",
    "TxnResult",
    "Unavailable",
    "applied_key",
    "connect",
    "connect_blocking",
    "digest",
    "sync_state",
]

_MODULES = {
    "Applied": "applied",
    "BlockingClient": "blocking",
    "Cache": "cache",
    "Client": "client",
    "ClientError": "errors",
    "Compacted": "errors",
    "Config": "config",
    "Event": "values",
    "Forked": "forks",
    "Freshness": "freshness",
    "InvalidConfig": "config",
    "KeyValue": "values",
    "Lease": "lease",
    "OutOfScope": "errors",
    "OutcomeUnknown": "errors",
    "Position": "position",
    "PutResult": "values",
    "RangeResult": "values",
    "Refused": "errors",
    "SequentialResult": "values",
    "SiteValue": "site",
    "SiteView": "site",
    "SyncState": "applied",
    "Tls": "connection",
    "Txn": "txn",
    "TxnResult": "txn",
    "Unavailable": "errors",
    "connect": "client",
    "connect_blocking": "blocking",
    "applied_key": "applied",
    "digest": "applied",
    "sync_state": "applied",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted([*globals(), *_MODULES])
