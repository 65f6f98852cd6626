"""`holdfast operator`: runs the Kubernetes operator, or shows what it would do. It is in a package of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli.errors import fail
from holdfast.cli.logs import set_up_logging
from holdfast.cli.options import LogLevel

operator = typer.Typer()


@operator.callback(invoke_without_command=True)
def run(context: typer.Context, log_level: LogLevel = "info") -> None:
    """Run the operator, in a pod of the Kubernetes cluster that it manages."""
    if context.invoked_subcommand is not None:
        return
    try:
        from holdfast_operator.app import main
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; the operator needs it: pip install 'holdfast[operator]'")
    set_up_logging(log_level, "operator")

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main(stop)

    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        fail("the operator runs in a pod of a Kubernetes cluster, and this is none: KUBERNETES_SERVICE_HOST is not set")
    asyncio.run(serve())


@operator.command()
def plan(
    filename: Annotated[Path, typer.Option("--filename", "-f", help="YAML file with the objects.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="For objects that name none.")] = "default",
    kubeconfig: Annotated[str | None, typer.Option(help="If absent, KUBECONFIG or ~/.kube/config.")] = None,
    context: Annotated[str | None, typer.Option(help="The context of the kubeconfig, if not the current one.")] = None,
    image_repository: Annotated[
        str, typer.Option(help="The operator's, for a cluster that is not made yet.")
    ] = "holdfast",
) -> None:
    """Show the operator's next step for the objects of a file, and why. Nothing is changed: the API server is asked
    with dryRun, and members are only asked how they are."""
    try:
        from holdfast_operator.preview import command
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed; plan needs it: pip install 'holdfast[operator,plan]'")
    set_up_logging("error", "operator")
    trouble = asyncio.run(command.run(filename, namespace, kubeconfig, context, image_repository))
    if trouble:
        fail(trouble)
