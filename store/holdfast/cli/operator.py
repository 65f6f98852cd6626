"""`holdfast operator`: runs the Kubernetes operator, which is in a package of its own."""

from __future__ import annotations

import asyncio
import os
import signal

from holdfast.cli.errors import fail
from holdfast.cli.logs import set_up_logging
from holdfast.cli.options import LogLevel


def operator(log_level: LogLevel = "info") -> None:
    """Run the operator, in a pod of the Kubernetes cluster that it manages."""
    try:
        from holdfast_operator.app import main
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; the operator needs it: pip install 'holdfast[operator]'")
    set_up_logging(log_level, "operator")

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        fail("the operator runs in a pod of a Kubernetes cluster, and this is none: KUBERNETES_SERVICE_HOST is not set")
    asyncio.run(run())
