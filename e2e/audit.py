"""What the operator asked of the API server, from the API server's audit log (e2e/audit-policy.yaml)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from e2e.kubectl import get, on_node
from e2e.nodes import CONTROL_PLANE

LOG = "/var/log/kubernetes/audit*.log"  # the API server begins a new file when one is full


@dataclass(frozen=True)
class Request:
    at: datetime
    verb: str
    group: str
    resource: str  # with its subresource: pods/eviction
    namespace: str
    stage: str
    refused: bool  # nobody granted it

    @property
    def watches(self) -> bool:
        """Whether it begins a watch or ends one."""
        return self.verb == "watch"

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}.{self.group}" if self.group else f"{self.verb} {self.resource}"


def requests() -> list[Request]:
    """All requests for objects that the operator ever made, each once."""
    found = []
    for line in on_node(CONTROL_PLANE, "sh", "-c", f"cat {LOG}").splitlines():
        entry = json.loads(line)
        about = entry.get("objectRef")
        if about is None:
            continue  # /version, /apis: every account may read these
        sub = about.get("subresource")
        found.append(
            Request(
                at=datetime.fromisoformat(entry["stageTimestamp"]),
                verb=entry["verb"],
                group=about.get("apiGroup", ""),
                resource=about["resource"] + (f"/{sub}" if sub else ""),
                namespace=about.get("namespace", ""),
                stage=entry["stage"],
                refused=entry.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid",
            )
        )
    # A watch is logged when it begins and when it ends.
    return [r for r in found if r.stage == ("ResponseStarted" if r.watches else "ResponseComplete") or r.refused]


def counted(found: Iterable[Request]) -> Counter[str]:
    return Counter(str(request) for request in found)


def granted(kind: str, name: str, *words: str) -> set[str]:
    """What a Role or a ClusterRole allows, as requests are shown."""
    rules = get(kind, name, *words)["rules"]
    return {
        f"{verb} {resource}.{group}" if group else f"{verb} {resource}"
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
