"""A cluster is saved and restored, by the steps of docs/kubernetes.md and the manifests that it names."""

from __future__ import annotations

from e2e.clusters import Cluster
from e2e.kubectl import condition, eventually

BACKUP, RESTORE = "manifests/samples/backup.yaml", "manifests/samples/restore.yaml"
SECONDS = 300.0


def save(cluster: Cluster) -> None:
    """Save a snapshot now, not at the hour."""
    cluster.kubectl("apply", "-f", BACKUP)
    cluster.kubectl("create", "job", "shop-backup-now", "--from=cronjob/shop-backup")
    _complete(cluster, "shop-backup-now")


def restore(cluster: Cluster) -> None:
    """Begin anew from the newest snapshot. Returns when the operator goes on with the restored cluster."""
    given_up = cluster.object()["status"]["clusterID"]
    cluster.patch({"paused": True})
    eventually("the operator pauses", lambda: condition(cluster.object(), "Paused") == "True")
    cluster.kubectl("scale", "statefulset", "shop-voter", "--replicas=0")
    cluster.kubectl("delete", "pvc", "data-shop-voter-0", seconds=SECONDS)
    cluster.kubectl("create", "-f", RESTORE)
    _complete(cluster, "shop-restore")
    cluster.kubectl("delete", "job", "shop-restore")
    cluster.annotate("holdfast.dev/wipe", given_up)
    cluster.patch({"paused": False})
    eventually("the cluster before is given up", lambda: cluster.object()["status"].get("clusterID") != given_up)


def _complete(cluster: Cluster, job: str) -> None:
    told = cluster.kubectl(
        "wait", "--for=condition=complete", f"job/{job}", f"--timeout={SECONDS:.0f}s", seconds=SECONDS + 10, check=False
    )
    said = cluster.kubectl("logs", f"job/{job}", check=False)
    assert "condition met" in told, f"{told}{said}{cluster.story()}"
    print(said)
