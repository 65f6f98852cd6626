"""Feature flags in an application: read from the replica (or member) on its node, by OpenFeature's stock provider.

    pip install openfeature-provider-flagd
    holdfast put /flags/new-shop '{"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
                                   "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "on", null]}}'
    python store/examples/flags.py 127.0.0.1:2379

Each evaluation is made from memory. It prints the flag for two users, and again whenever a flag changes.
"""

from __future__ import annotations

import sys
import threading

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent

changed = threading.Event()


def on_change(details: EventDetails) -> None:
    changed.set()


def main() -> None:
    host, _, port = sys.argv[1].rpartition(":")
    provider = FlagdProvider(
        resolver_type=ResolverType.IN_PROCESS,
        host=host,
        port=int(port),
        selector="/flags/",
        deadline_ms=30_000,  # how long the start waits for a server; the default is half a second
    )
    api.set_provider_and_wait(provider)
    api.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, on_change)
    client = api.get_client()
    while True:
        for plan in ("free", "pro"):
            context = EvaluationContext("user-17", {"plan": plan})
            print(f"{plan}: {client.get_boolean_value('new-shop', False, context)}", flush=True)
        changed.wait()
        changed.clear()


if __name__ == "__main__":
    main()
