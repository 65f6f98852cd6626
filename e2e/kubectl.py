"""kubectl and docker, for the tests: what a person would type."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("HOLDFAST_CACHE", Path.home() / ".cache" / "holdfast"))
KUBECONFIG = os.environ.get("KUBECONFIG", str(CACHE / "kubeconfig"))
ENVIRONMENT = {**os.environ, "KUBECONFIG": KUBECONFIG, "PATH": f"{CACHE / 'bin'}:{os.environ['PATH']}"}

CALM = 300.0  # seconds for what takes long on a busy machine


def run(*words: str, stdin: str | None = None, seconds: float = 120, check: bool = True) -> str:
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=seconds, env=ENVIRONMENT, cwd=ROOT, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*words: str, stdin: str | None = None, seconds: float = 120, check: bool = True) -> str:
    return run("kubectl", *words, stdin=stdin, seconds=seconds, check=check)


def get(*words: str) -> Any:
    return json.loads(kubectl("get", *words, "-o", "json"))


def apply(text: str) -> None:
    kubectl("apply", "-f", "-", stdin=text)


def install(*words: str) -> None:
    """Install or upgrade the operator. `words`: further options of Helm."""
    release = ["helm", "upgrade", "--install", "holdfast", "charts/holdfast", "-n", "holdfast-system"]
    # In the cloud: on an edge node it would be cut off with it.
    options = ["--create-namespace", "--wait", "--timeout", "180s", "-f", "e2e/operator-values.yaml"]
    run(*release, *options, *words, seconds=CALM)


def on_node(node: str, *words: str) -> str:
    return run("docker", "exec", node, *words)


def eventually(what: str, holds: Callable[[], Any], seconds: float = CALM) -> Any:
    """Wait for something that others bring about. Returns what `holds` gives once it is true."""
    began = time.monotonic()
    last: object = None
    while time.monotonic() - began < seconds:
        try:
            last = holds()
            if last:
                print(f"   {what}: after {time.monotonic() - began:.1f} s", flush=True)
                return last
        except (AssertionError, KeyError, IndexError, subprocess.TimeoutExpired) as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds:g} s: {what} (last seen: {last})")


def condition(obj: Any, type_: str) -> str:
    return next((c["status"] for c in obj.get("status", {}).get("conditions", []) if c["type"] == type_), "")


def lines(text: str) -> list[dict[str, Any]]:
    """The JSON lines that an application printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
