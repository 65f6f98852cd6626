"""A program with metrics for Prometheus of its client: calls by address, and how old its configuration may be.

    HOLDFAST_ENDPOINTS=shop-edge:2379 METRICS_PORT=9000 python metrics.py

Needs holdfast[prometheus].
"""

from __future__ import annotations

import os

from holdfast import client
from holdfast.client.prometheus import collector
from prometheus_client import REGISTRY, Gauge, start_http_server

LIMIT = Gauge("app_limit", "The limit in force.")


def main() -> None:
    with client.connect_blocking(os.environ["HOLDFAST_ENDPOINTS"]) as hf:
        REGISTRY.register(collector(hf))
        start_http_server(int(os.environ["METRICS_PORT"]), addr="127.0.0.1")
        with hf.config("/app/limit", int, file=os.environ.get("LAST_GOOD")) as limit:
            LIMIT.set_function(lambda: limit.value)
            for value in limit.changes():  # while it runs
                print(f"the limit is {value} now", flush=True)


if __name__ == "__main__":
    main()
