"""`holdfast operator`: the Kubernetes operator, in its own package."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from holdfast.cli.errors import fail
from holdfast.cli.serve import set_up_logging


def operator(log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info") -> None:
    """Run the operator, in a pod of the Kubernetes cluster it looks after."""
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

    try:
        asyncio.run(run())
    except KeyError as error:
        fail(f"the operator runs in a pod of a Kubernetes cluster; {error} is not set")
