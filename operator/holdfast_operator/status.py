"""Conditions and statuses, which are written only when they changed."""

from __future__ import annotations

import time
from typing import Any

from holdfast_operator.kube import Kube, Object


def condition(obj: Object, type_: str, holds: bool | None, reason: str, message: str) -> Object:
    """A condition; its transition time changes only when its status changes."""
    status = {True: "True", False: "False", None: "Unknown"}[holds]
    before = next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == type_), None)
    same = before is not None and before["status"] == status
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before["lastTransitionTime"] if same and before else now,
        "observedGeneration": obj["metadata"]["generation"],
    }


async def write(kube: Kube, obj: Object, status: dict[str, Any]) -> None:
    """Write `status` if it differs from what the object has."""
    wanted = {key: value for key, value in status.items() if value is not None}
    if wanted == obj.get("status", {}):
        return
    answer = await kube.update_status(obj, wanted)
    obj["status"] = wanted
    obj["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"]
