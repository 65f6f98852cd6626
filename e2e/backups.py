"""A cluster is saved and restored, by the manifests and the script that docs/kubernetes.md names."""

from __future__ import annotations

from e2e.clusters import Cluster
from e2e.kubectl import run

BACKUP, RESTORE = "manifests/samples/backup.yaml", "manifests/samples/restore.sh"
SECONDS = 300.0


def save(cluster: Cluster) -> None:
    """Save a snapshot now, not at the hour."""
    cluster.kubectl("apply", "-f", BACKUP)
    cluster.kubectl("create", "job", "shop-backup-now", "--from=cronjob/shop-backup")
    _complete(cluster, "shop-backup-now")


def restore(cluster: Cluster, snapshot: str = "") -> str:
    """Begin anew from a snapshot; without a name, from the newest. Returns what was said. Raises AssertionError if it
    fails."""
    return run(RESTORE, *([snapshot] if snapshot else []), "-n", cluster.namespace, seconds=2 * SECONDS)


def _complete(cluster: Cluster, job: str) -> None:
    told = cluster.kubectl(
        "wait", "--for=condition=complete", f"job/{job}", f"--timeout={SECONDS:.0f}s", seconds=SECONDS + 10, check=False
    )
    said = cluster.kubectl("logs", f"job/{job}", check=False)
    assert "condition met" in told, f"{told}{said}{cluster.story()}"
    print(said)
