"""The versions that a server reports of itself."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast import __version__
from holdfast.api.pages import as_json


@dataclass(frozen=True, slots=True)
class Versions:
    """Reported versions. Clients and Kubernetes choose features by them, so these are versions of the etcd API that is
    implemented, not of this program."""

    server: str = "3.6.16"
    cluster: str = "3.6.0"
    storage: str = "3.6.0"

    def page(self) -> str:
        """For /version, as etcd says it."""
        return as_json(
            {
                "etcdserver": self.server,
                "etcdcluster": self.cluster,
                "storage": self.storage,
                "holdfast": __version__,
            }
        )
