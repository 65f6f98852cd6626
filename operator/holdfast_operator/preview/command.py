"""`holdfast operator plan`: connects to the API server of the kubeconfig, and prints the preview."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from holdfast_operator.kube import ApiError
from holdfast_operator.preview.dry_run import DryRun
from holdfast_operator.preview.kubeconfig import NoCluster, connect
from holdfast_operator.preview.preview import BadFile, preview, read


async def run(path: Path, namespace: str, kubeconfig: str | None, context: str | None, repository: str) -> str:
    """Returns what was wrong; "" if nothing was."""
    try:
        objects = read(path, namespace)
        base, tls, token = await connect(kubeconfig, context)
        kube = DryRun(base, tls=tls, token_file=None, token=token)
        try:
            await preview(kube, objects, repository, print)
        finally:
            await kube.close()
    except (BadFile, NoCluster) as error:
        return str(error)
    except ApiError as error:
        return f"the API server refused: {error}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return f"the API server cannot be reached: {error}"
    return ""
