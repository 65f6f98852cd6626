"""An application with the stock flagd provider, as a process of its own: `flag_app.py PORT SELECTOR`.

A process of its own, because the provider registers the same protobuf messages as our server, and because an
application is restarted. Prints `ready`; then answers each line of its input, the JSON of [type, flag, context], by the
JSON of [value, variant, reason]. Prints each event as `event NAME FLAGS`.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent

DEFAULTS: dict[str, Any] = {"boolean": False, "string": "?", "integer": -1, "float": -1.0, "object": {}}
lock = threading.Lock()


def say(line: str) -> None:
    with lock:
        print(line, flush=True)


def watch(event: ProviderEvent) -> None:
    api.add_handler(event, lambda details: told(event, details))


def told(event: ProviderEvent, details: EventDetails) -> None:
    say(f"event {event.name} {','.join(sorted(details.flags_changed or []))}")


def main() -> None:
    port, selector = sys.argv[1:]
    provider = FlagdProvider(
        resolver_type=ResolverType.IN_PROCESS,
        host="127.0.0.1",
        port=int(port),
        selector=selector or None,
        deadline_ms=60_000,
        retry_backoff_ms=100,
        retry_backoff_max_ms=1000,
        retry_grace_period=2,
    )
    watch(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    watch(ProviderEvent.PROVIDER_STALE)
    api.set_provider_and_wait(provider)
    client = api.get_client()
    say("ready")
    for line in sys.stdin:
        kind, flag, context = json.loads(line)
        evaluate = getattr(client, f"get_{kind}_details")
        found = evaluate(flag, DEFAULTS[kind], EvaluationContext(context.pop("key", None), context))
        say(json.dumps([found.value, found.variant, found.error_code or found.reason]))
    api.shutdown()


main()
